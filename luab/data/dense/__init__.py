"""Data sets for dense tasks: boxes, masks and points within an image."""
