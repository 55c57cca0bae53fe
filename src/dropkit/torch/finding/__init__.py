"""Where a model drops: what its structure shows, what a run shows, and whether it does what it is taken to do."""
