"""Token ids and colours, and how a pair of grids becomes two rows of tokens.

A pair is placed on a square canvas, both grids at the same offset.  Below each grid is a row of EOS over its width,
right of it a column of EOS over its height (where the canvas has them); every other cell is PAD.  Canvases are stored
row by row.  `dataset.decoding` is the inverse.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from dataset.augmentation import NUM_COLOURS, NUM_DIHEDRAL, TRANSPOSING, transformed_layout
from dataset.hashing import splitmix64

PAD = 0
EOS = 1
COLOUR_0 = 2
VOCAB_SIZE = COLOUR_0 + NUM_COLOURS
MAX_GRID = 30
BLANK_IDENTIFIER = 0

TURNS = np.isin(np.arange(NUM_DIHEDRAL), TRANSPOSING)
"""Whether each dihedral transform turns a grid's height into its width."""

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


class ExampleIndex(NamedTuple):
    """Where the grids and the augmentation of each example of a compact split are.

    pairs: int32 [pairs, 6]: offset of the input in the grids, its height and width, then the same for the output
        (height 0: not known).
    augmentations: uint8 [puzzles, 11], dihedral transform and ten colours.
    first_example, first_pair, first_row: int64 [groups], the first example of each group, its first row of `pairs` and
        its first row of `augmentations`.
    group_examples: int64 [groups], the number of examples of each puzzle of a group.
    """

    pairs: np.ndarray
    augmentations: np.ndarray
    first_example: np.ndarray
    group_examples: np.ndarray
    first_pair: np.ndarray
    first_row: np.ndarray


@numba.njit(nogil=True, cache=True)
def _locate(index, example):  # type: ignore[no-untyped-def]
    """Returns the group of an example, its position in its puzzle, and its row of `augmentations`."""
    group = np.searchsorted(index.first_example, example, side="right") - 1
    within = example - index.first_example[group]
    count = index.group_examples[group]
    return group, within % count, index.first_row[group] + within // count


@numba.njit(nogil=True, cache=True)
def _place_grid(grid, h, w, transform, tokens, row, col, canvas):  # type: ignore[no-untyped-def]
    """Writes a grid and its EOS frame on a canvas [height, width], at (row, col).

    Args:
        grid: its cells, flat, h x w before the dihedral transform.
        tokens: [10], the token of each colour.
    """
    height, width = canvas.shape
    H, W, start, down, right = transformed_layout(h, w, transform, w)
    for i in range(H):
        source = start + i * down
        for j in range(W):
            canvas[row + i, col + j] = tokens[grid[source + j * right]]
        if col + W < width:
            canvas[row + i, col + W] = EOS
    if row + H < height:
        for j in range(W):
            canvas[row + H, col + j] = EOS


@numba.njit(nogil=True, cache=True)
def encode_examples(grids, index, examples, visit_seeds, drawn, side, inputs, labels):  # type: ignore[no-untyped-def]
    """Encodes examples by number, on the top-left part of a square canvas.

    Args:
        grids: uint8, the cells of all grids, flat.
        index: an `ExampleIndex`.
        examples: int64 [N].
        visit_seeds: uint64 [N], or empty for no shifts.  One example of a visit, drawn from its seed, is not shifted.
        drawn: uint8 [N, 11], augmentations in place of the stored ones; [0, 11] for the stored ones.
        side: the side of the whole canvas.
        inputs, labels: uint8 [N, height, width], the part of the canvas, every cell of which is written.  It must hold
            the grids.  Shifts stay within it, and within it also stays the EOS frame where the whole canvas has one.
    """
    height, width = inputs.shape[1:]
    rows = height + (1 if height == side else 0)  # over which the grids and the row below them may be moved
    cols = width + (1 if width == side else 0)
    tokens = np.empty(10, dtype=np.uint8)
    for n in range(len(examples)):
        group, local, puzzle = _locate(index, examples[n])
        count = index.group_examples[group]
        pair = index.pairs[index.first_pair[group] + local]
        if len(drawn):
            transform = np.int64(drawn[n, 0])
            for c in range(10):
                tokens[c] = drawn[n, 1 + c] + COLOUR_0
        else:
            transform = np.int64(index.augmentations[puzzle, 0])
            for c in range(10):
                tokens[c] = index.augmentations[puzzle, 1 + c] + COLOUR_0
        row = np.int64(0)
        col = np.int64(0)
        if len(visit_seeds):
            seed = splitmix64(visit_seeds[n])
            if np.int64(seed % np.uint64(count)) != local:
                h, w, _, _, _ = transformed_layout(max(pair[1], pair[4]), max(pair[2], pair[5]), transform, 0)
                draw = splitmix64(seed + np.uint64(local + 1))
                row = np.int64((draw >> np.uint64(32)) % np.uint64(max(1, rows - h)))
                col = np.int64((draw & np.uint64(0xFFFFFFFF)) % np.uint64(max(1, cols - w)))
        inputs[n] = PAD
        labels[n] = PAD
        _place_grid(grids[pair[0] :], pair[1], pair[2], transform, tokens, row, col, inputs[n])
        if pair[4] > 0:
            _place_grid(grids[pair[3] :], pair[4], pair[5], transform, tokens, row, col, labels[n])


@numba.njit(nogil=True, cache=True)
def measure_examples(index, examples, side, sizes):  # type: ignore[no-untyped-def]
    """Writes the height and width that each example needs with its EOS frame, at most `side`, to sizes int [N, 2]."""
    for n in range(len(examples)):
        group, local, puzzle = _locate(index, examples[n])
        pair = index.pairs[index.first_pair[group] + local]
        transform = np.int64(index.augmentations[puzzle, 0])
        h, w, _, _, _ = transformed_layout(max(pair[1], pair[4]), max(pair[2], pair[5]), transform, 0)
        sizes[n, 0] = min(side, h + 1)
        sizes[n, 1] = min(side, w + 1)


@numba.njit(nogil=True, cache=True)
def find_pairs(index, group_starts, puzzles, first_pairs, is_turned):  # type: ignore[no-untyped-def]
    """Writes the first row of `index.pairs` of each puzzle [N], and whether its augmentation turns height into width.

    Args:
        group_starts: int64 [groups + 1], the first puzzle of each group and the end.
        first_pairs, is_turned: int64 [N] and bool [N], which are written.
    """
    group = 0
    for n in range(len(puzzles)):
        puzzle = puzzles[n]
        if not group_starts[group] <= puzzle < group_starts[group + 1]:
            group = np.searchsorted(group_starts, puzzle, side="right") - 1
        first_pairs[n] = index.first_pair[group]
        transform = index.augmentations[index.first_row[group] + puzzle - group_starts[group], 0]
        is_turned[n] = TURNS[transform]
