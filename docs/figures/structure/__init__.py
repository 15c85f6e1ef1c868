"""The drawing of the folders and of the path of the data, read from the sources."""
