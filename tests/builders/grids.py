"""Plain ways to make grids and canvases for tests."""

from __future__ import annotations

import numpy as np

from dataset.encoding import COLOUR_0, EOS, PAD


def encode_grid(grid: np.ndarray, side: int, row: int = 0, col: int = 0) -> np.ndarray:
    """Returns a grid [h, w] at (row, col) of a square canvas, as tokens uint8 [side * side]: the slow, plain way."""
    h, w = grid.shape
    if row < 0 or col < 0 or row + h > side or col + w > side:
        raise ValueError(f"a {h} x {w} grid at ({row}, {col}) does not fit a {side} x {side} canvas")
    canvas = np.full((side, side), PAD, dtype=np.uint8)
    canvas[row : row + h, col : col + w] = grid + COLOUR_0
    canvas[row + h : row + h + 1, col : col + w] = EOS
    canvas[row : row + h, col + w : col + w + 1] = EOS
    return canvas.reshape(-1)
