"""Rendering: scores, byproducts and predictions in; tables and figures for people out."""
