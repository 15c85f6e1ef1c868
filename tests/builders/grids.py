"""Encodes single grids, in plain NumPy, for tests of what reads canvases."""

from __future__ import annotations

import numpy as np

from dataset.encoding import COLOUR_0, EOS, PAD


def encode_grid(grid: np.ndarray, side: int, row: int = 0, col: int = 0) -> np.ndarray:
    """Returns `grid` [h, w] at (row, col) of a canvas, as tokens uint8 [side * side]."""
    h, w = grid.shape
    assert row >= 0 <= col and row + h <= side >= col + w, (grid.shape, row, col, side)
    canvas = np.full((side, side), PAD, dtype=np.uint8)
    canvas[row : row + h, col : col + w] = grid + COLOUR_0
    canvas[row + h : row + h + 1, col : col + w] = EOS
    canvas[row : row + h, col + w : col + w + 1] = EOS
    return canvas.reshape(-1)
