"""Predictions (torch), then votes, scores and submissions (NumPy and plain Python)."""
