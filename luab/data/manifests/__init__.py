"""Lists of the images of every data set, with their labels."""
