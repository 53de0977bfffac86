"""The demo world: a small drawn world, packed in the official formats of every data set the study reads."""
