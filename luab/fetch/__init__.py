"""Archives: the list of downloads, transfer, verification and unpacking."""
