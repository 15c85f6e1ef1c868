"""Updates of the network: optimizer, learning rate, and what happens at a gradient that is not finite."""
