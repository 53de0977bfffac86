"""Annotation byproducts: from the released archives to one table each, and numbers about them."""
