"""The network, its recursions, adaptive computation and losses.  Knows nothing of files, data sets or ranks."""
