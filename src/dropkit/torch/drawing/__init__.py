"""Which draw a call gets: by what is said around it, on which rank, and in a forward that is run again."""
