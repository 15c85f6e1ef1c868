"""Publishes a network: a folder to share, the published code's format, a model card, a hub."""
