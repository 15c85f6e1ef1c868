"""Token ids, and how a pair of grids becomes two rows of tokens.

A pair lies on a square canvas, both grids at the same offset.  Below each grid is a row of EOS over its width, right of
it a column of EOS over its height (where the canvas has them); all else is PAD.  Rows are flattened.
"""

from __future__ import annotations

import numba
import numpy as np

from dataset.augmentation import NUM_COLOURS, transformed_layout
from dataset.hashing import splitmix64

PAD = 0
EOS = 1
COLOUR_0 = 2
VOCAB_SIZE = COLOUR_0 + NUM_COLOURS
MAX_GRID = 30
BLANK_IDENTIFIER = 0

ARC_COLOURS = (
    "#000000",
    "#0074D9",
    "#FF4136",
    "#2ECC40",
    "#FFDC00",
    "#AAAAAA",
    "#F012BE",
    "#FF851B",
    "#7FDBFF",
    "#870C25",
)
"""How the colours 0 to 9 are drawn, as ARC's own pages draw them."""


def encode_grid(grid: np.ndarray, side: int, row: int = 0, col: int = 0) -> np.ndarray:
    """`grid` [h, w] at (row, col) of a canvas, as tokens uint8 [side * side].  Plain; below is the fast way.

    Raises:
        ValueError: if the grid does not fit there.
    """
    h, w = grid.shape
    if row < 0 or col < 0 or row + h > side or col + w > side:
        raise ValueError(f"a {h} x {w} grid at ({row}, {col}) does not fit a {side} x {side} canvas")
    canvas = np.full((side, side), PAD, dtype=np.uint8)
    canvas[row : row + h, col : col + w] = grid + COLOUR_0
    canvas[row + h : row + h + 1, col : col + w] = EOS
    canvas[row : row + h, col + w : col + w + 1] = EOS
    return canvas.reshape(-1)


@numba.njit(nogil=True, cache=True)
def _place(grid, h, w, transform, tokens, height, width, row, col, out):  # type: ignore[no-untyped-def]
    """Writes `grid` (flat, h x w) under a dihedral transform and a colour-to-token table at (row, col) of `out`, which
    is a canvas of height x width."""
    H, W, start, down, right = transformed_layout(h, w, transform, w)
    for i in range(H):
        source = start + i * down
        target = (row + i) * width + col
        for j in range(W):
            out[target + j] = tokens[grid[source + j * right]]
        if col + W < width:
            out[target + W] = EOS
    if row + H < height:
        target = (row + H) * width + col
        for j in range(W):
            out[target + j] = EOS


@numba.njit(nogil=True, cache=True)
def encode_examples(  # type: ignore[no-untyped-def]
    grids,
    pairs,
    augmentations,
    first_example,
    group_examples,
    first_pair,
    first_row,
    examples,
    visit_seeds,
    side,
    height,
    width,
    inputs,
    labels,
):
    """Encodes examples by number, on the top-left part of a square canvas.

    Args:
        grids: all cells, flat.  pairs: int32 [.., 6] input offset, h, w, output offset, h, w (h = 0: unknown).
        augmentations: uint8 [puzzles, 11] dihedral transform and ten colours.
        first_example, group_examples, first_pair, first_row: int64 [groups], each group's first example, number of
            examples per puzzle, first pair and first row of `augmentations`.
        examples: int64 [N].
        visit_seeds: uint64 [N], or empty for no shifts.  One example of a visit (drawn from its seed) is not shifted.
        side: of the whole canvas.  height, width: of the part, which must hold the grids.  Shifts stay within it, and
            leave the EOS frame in it where it ends before the whole canvas does.
        inputs, labels: uint8 [N, height * width], written whole.
    """
    rows = height + (1 if height == side else 0)  # over which the grids and the row below them may be moved
    cols = width + (1 if width == side else 0)
    tokens = np.empty(10, dtype=np.uint8)
    for n in range(len(examples)):
        group = np.searchsorted(first_example, examples[n], side="right") - 1
        within = examples[n] - first_example[group]
        count = group_examples[group]
        local = within % count
        augmentation = augmentations[first_row[group] + within // count]
        pair = pairs[first_pair[group] + local]
        transform = np.int64(augmentation[0])
        for c in range(10):
            tokens[c] = augmentation[1 + c] + COLOUR_0
        row = np.int64(0)
        col = np.int64(0)
        if len(visit_seeds):
            seed = splitmix64(visit_seeds[n])
            if np.int64(seed % np.uint64(count)) != local:
                h, w, _, _, _ = transformed_layout(max(pair[1], pair[4]), max(pair[2], pair[5]), transform, 0)
                draw = splitmix64(seed + np.uint64(local + 1))
                row = np.int64((draw >> np.uint64(32)) % np.uint64(max(1, rows - h)))
                col = np.int64((draw & np.uint64(0xFFFFFFFF)) % np.uint64(max(1, cols - w)))
        inputs[n, :] = PAD
        labels[n, :] = PAD
        _place(grids[pair[0] :], pair[1], pair[2], transform, tokens, height, width, row, col, inputs[n])
        if pair[4] > 0:
            _place(grids[pair[3] :], pair[4], pair[5], transform, tokens, height, width, row, col, labels[n])


@numba.njit(nogil=True, cache=True)
def extents_of(  # type: ignore[no-untyped-def]
    pairs, augmentations, first_example, group_examples, first_pair, first_row, examples, side, out
):
    """Height and width that examples need with their EOS frame, at most `side`: out int [N, 2].  Arguments as of
    `encode_examples`."""
    for n in range(len(examples)):
        group = np.searchsorted(first_example, examples[n], side="right") - 1
        within = examples[n] - first_example[group]
        count = group_examples[group]
        pair = pairs[first_pair[group] + within % count]
        transform = np.int64(augmentations[first_row[group] + within // count, 0])
        h, w, _, _, _ = transformed_layout(max(pair[1], pair[4]), max(pair[2], pair[5]), transform, 0)
        out[n, 0] = min(side, h + 1)
        out[n, 1] = min(side, w + 1)
