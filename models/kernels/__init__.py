"""Computations that have several implementations, by device: attention and the depthwise convolution."""
