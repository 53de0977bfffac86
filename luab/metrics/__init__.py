"""Metrics: arrays in, numbers out; they read no files and know no data sets."""
