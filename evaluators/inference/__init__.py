"""Runs the network on test examples and collects its predictions."""
