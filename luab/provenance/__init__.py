"""Where results come from, and how they are shared."""
