"""The plan of a study and its cost."""
