"""Weights that a network starts from or is shared as, whoever wrote them."""
