"""Statistics of the byproducts."""
