"""The network, its recursions, adaptive computation and losses.  It does not know files, data sets or ranks."""
