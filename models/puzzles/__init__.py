"""What the network is told of a puzzle: its row in a table, or an embedding composed of its task and augmentation."""
