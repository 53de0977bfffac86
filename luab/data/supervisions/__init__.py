"""Points that a model is trained on, one file for each supervision."""
