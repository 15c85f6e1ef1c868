"""The slots of a run: their carries, micro-batches, and with several canvases the buckets and their scheduler."""
