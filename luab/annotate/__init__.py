"""`luab annotate`: a small server that shows images to people and records the byproducts of their annotation."""
