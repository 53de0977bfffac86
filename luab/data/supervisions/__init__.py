"""Points that models are trained on, one file for each supervision."""
