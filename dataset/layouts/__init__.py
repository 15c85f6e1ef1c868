"""Reads the files that tasks come in, whichever of the known layouts they have."""
