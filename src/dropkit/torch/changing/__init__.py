"""A model's dropout exchanged, moved, switched and replayed, and given back as it was."""
