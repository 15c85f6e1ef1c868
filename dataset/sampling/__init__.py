"""Batches of data sets: which examples, in which order, on which rank."""
