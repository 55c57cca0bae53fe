"""A model of the user's as a recipe: its sites found and changed, its options checked, its defaults told."""
