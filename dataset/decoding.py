"""Turns predicted canvases back into grids: crops them and undoes their augmentation."""

from __future__ import annotations

import numba
import numpy as np

from dataset.augmentation import transformed_layout
from dataset.encoding import COLOUR_0, VOCAB_SIZE

HEADER = 2  # a candidate's row begins with its height and width


@numba.njit(nogil=True, cache=True)
def crop_size(canvas, height, width):  # type: ignore[no-untyped-def]
    """Height and width of the largest rectangle of colours from the top-left corner of a canvas, flat and of
    height x width; (0, 0) if there is none."""
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
    """The grid uint8 [h, w] that a canvas [side * side] of tokens shows; [0, 0] where it shows none."""
    h, w = crop_size(canvas, side, side)
    return canvas.reshape(side, side)[:h, :w] - COLOUR_0


@numba.njit(nogil=True, cache=True)
def _restore(tokens, side, transforms, colours, out):  # type: ignore[no-untyped-def]
    """Crops every canvas and undoes its augmentation: out [N, 2 + side * side] holds h, w and the cells, flat.

    transforms: the *inverse* dihedral of each row.  colours: [N, 10], what each original colour became.
    """
    back = np.zeros(10, dtype=np.uint8)
    for n in range(len(tokens)):
        canvas = tokens[n]
        h, w = crop_size(canvas, side, side)
        for c in range(10):
            back[colours[n, c]] = c
        H, W, first, down, right = transformed_layout(h, w, transforms[n], side)
        out[n, 0], out[n, 1] = H, W
        at = HEADER
        for i in range(H):
            for j in range(W):
                out[n, at] = back[canvas[first + i * down + j * right] - COLOUR_0]
                at += 1
