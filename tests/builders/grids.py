"""Plain ways to make grids and canvases for tests."""

from __future__ import annotations

import numpy as np

from dataset.encoding import COLOUR_0, EOS, PAD


def encode_grid(grid: np.ndarray, side: int, row: int = 0, col: int = 0) -> np.ndarray:
    """Returns a grid [h, w] at (row, col) of a square canvas, as tokens uint8 [side * side]."""
    h, w = grid.shape
    assert row + h <= side and col + w <= side, "the grid does not fit"
    canvas = np.full((side, side), PAD, dtype=np.uint8)
    canvas[row : row + h, col : col + w] = grid + COLOUR_0
    canvas[row + h : row + h + 1, col : col + w] = EOS
    canvas[row : row + h, col + w : col + w + 1] = EOS
    return canvas.reshape(-1)
