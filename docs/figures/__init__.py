"""The drawings of the documentation, made from the code."""
