"""Images as training and prediction read them."""
