"""The shares that make a mask of a keyed number for each element, a file for each kind."""
