"""Measures what a GPU can show, unattended: `python -m benchmarks.gpu_report`."""
