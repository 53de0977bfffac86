"""The configuration of a study and the paths of its files."""
