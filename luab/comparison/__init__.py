"""Comparisons of runs: over seeds, over images, of two runs."""
