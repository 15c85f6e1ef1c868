"""The sections of `python -m benchmarks.run`."""
