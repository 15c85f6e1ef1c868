"""Turns predicted canvases back into grids: crops them and undoes their augmentation.

A canvas is cropped to the largest rectangle from its top-left corner whose cells are all colours (arXiv 2510.04871
follows the same rule).  Of two rectangles of equal area the one with fewer rows is kept.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from dataset.augmentation import undo_augmentation
from dataset.encoding import COLOUR_0, VOCAB_SIZE

HEADER = 2
"""Cells before the grid in a row that `restore_grids` returns: height and width."""


@numba.njit(nogil=True, cache=True)
def crop_size(canvas, height, width):  # type: ignore[no-untyped-def]
    """Returns height and width of the grid that a flat canvas of height x width shows; (0, 0) if it shows none."""
    best_h, best_w, wide = 0, 0, width
    for i in range(height):
        run = 0
        while run < wide and COLOUR_0 <= canvas[i * width + run] < VOCAB_SIZE:
            run += 1
        wide = run
        if wide == 0:
            break
        if (i + 1) * wide > best_h * best_w:
            best_h, best_w = i + 1, wide
    return best_h, best_w


def crop(canvas: np.ndarray, side: int) -> np.ndarray:
    """Returns the grid uint8 [h, w] that a canvas [side * side] of tokens shows; [0, 0] if it shows none."""
    h, w = crop_size(canvas, side, side)
    return canvas.reshape(side, side)[:h, :w] - COLOUR_0


def restore_grids(tokens: np.ndarray, dihedral: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Crops every canvas and undoes its augmentation: `crop` and `Augmentation.invert` for many at once.

    Args:
        tokens: uint8 [N, side * side].
        dihedral: uint8 [N], the dihedral transform of each row's augmentation.
        colours: uint8 [N, 10], the colour that each colour became.

    Returns:
        uint8 [N, 2 + side * side]: height, width, then the grid's cells row by row.  Both are 0 if it shows none.
    """
    rows = np.zeros((len(tokens), HEADER + tokens.shape[1]), dtype=np.uint8)
    _restore(tokens, math.isqrt(tokens.shape[1]), dihedral, colours, rows)
    return rows


@numba.njit(nogil=True, cache=True)
def _restore(tokens, side, dihedral, colours, rows):  # type: ignore[no-untyped-def]
    for n in range(len(tokens)):
        height, width = crop_size(tokens[n], side, side)
        rows[n, 0], rows[n, 1] = undo_augmentation(
            tokens[n], height, width, side, dihedral[n], colours[n], COLOUR_0, rows[n, HEADER:]
        )
