"""Labels, manifests, test sets, targets, transforms and loaders: everything between files and the model."""
