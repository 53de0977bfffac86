"""Comparisons of runs: spread over seeds, uncertainty over images, and two runs on the same images."""
