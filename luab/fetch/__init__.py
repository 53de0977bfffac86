"""Downloads: the list of archives, transfer, verification, unpacking."""
