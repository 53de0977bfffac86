"""The fast way from the released archives to columns."""
