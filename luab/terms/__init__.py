"""Terms of the objective for uses of byproducts other than the paper's regression, one file for each.

The file's name is the value of `use`; it defines `TERM`, a subclass of `luab.objective.Term`. Loaded by name, so that
the code digest of a training covers its own term only.
"""
