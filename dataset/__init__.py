"""From ARC tasks to batches: tasks, augmentation, encoding, storage, sampling.  Knows nothing of networks."""
