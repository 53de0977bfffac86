"""Training: the loop, checkpoints, several processes."""
