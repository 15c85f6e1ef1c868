"""From predicted canvases to ranked candidates: crop, undo the augmentation, count equal grids.

A canvas is cropped to the largest rectangle from its top-left corner whose cells are all colours (arXiv 2510.04871
follows the same rule); among equal areas the one of fewer rows is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np

from dataset.augmentation import DIHEDRAL_INVERSE, transformed_layout
from dataset.encoding import COLOUR_0, VOCAB_SIZE
from dataset.storage import PuzzleCatalog
from evaluators.predictions import Predictions

HEADER = 2  # a candidate's row begins with its height and width


@dataclass(frozen=True)
class Candidate:
    """A grid [h, w] with the number of its votes and the mean and sum of sigmoid(halting logit) over them."""

    grid: np.ndarray
    votes: int
    mean_halt: float
    sum_halt: float

    @property
    def content(self) -> tuple[tuple[int, ...], bytes]:
        return self.grid.shape, self.grid.tobytes()


Votes = dict[tuple[str, int], list[Candidate]]
"""Ranked candidates, best first, per (task id, index of the test input)."""

RANKINGS: dict[str, Callable[[Candidate], tuple[float, ...]]] = {
    "votes": lambda c: (c.votes, c.mean_halt),
    "mean_halt": lambda c: (c.mean_halt, c.votes),
    "sum_halt": lambda c: (c.sum_halt, c.votes),
}


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


def count_votes(predictions: Predictions, catalog: PuzzleCatalog, ranking: str = "votes") -> Votes:
    """Ranked candidates of every test input that has predictions.

    By default a candidate ranks by votes, then by mean sigmoid of the halting logit, high first.  Ties are broken by
    the grid itself, so that neither ranks nor the order of predictions matter.

    Raises:
        ValueError: if an identifier stands for no puzzle of the catalog.
    """
    identifiers = predictions.puzzle_identifiers
    if len(identifiers) and not 0 <= identifiers.min() <= identifiers.max() < len(catalog):
        raise ValueError(
            f"the predictions name puzzles up to {identifiers.max()}, the data set has {len(catalog)}: "
            "use the data set that was predicted"
        )
    if (catalog.task_of[identifiers] < 0).any():
        raise ValueError("the predictions name the blank puzzle: predict again")
    side = math.isqrt(predictions.tokens.shape[1])
    rows = np.zeros((len(predictions), HEADER + side * side), dtype=np.uint8)
    _restore(
        predictions.tokens, side, DIHEDRAL_INVERSE[catalog.dihedral[identifiers]], catalog.colours[identifiers], rows
    )
    confidence = 1 / (1 + np.exp(-np.clip(predictions.q_halt.astype(np.float64), -700, 700)))

    found: dict[tuple[int, int], dict[bytes, list[float]]] = {}
    tasks = catalog.task_of[identifiers].tolist()
    for task, index, row, halt in zip(tasks, predictions.test_index.tolist(), rows, confidence.tolist(), strict=True):
        if row[0]:
            key = row[: HEADER + int(row[0]) * int(row[1])].tobytes()
            found.setdefault((task, index), {}).setdefault(key, []).append(halt)
    return {
        (catalog.task_ids[task], index): _ranked(counted, ranking) for (task, index), counted in sorted(found.items())
    }


def _ranked(counted: dict[bytes, list[float]], ranking: str) -> list[Candidate]:
    candidates = []
    for key, halts in counted.items():
        grid = np.frombuffer(key, dtype=np.uint8, offset=HEADER).reshape(key[0], key[1])
        total = math.fsum(halts)  # exact, so that the order of the predictions does not matter
        candidates.append(Candidate(grid, len(halts), total / len(halts), total))
    return sorted(candidates, key=lambda c: (*(-value for value in RANKINGS[ranking](c)), c.content))
