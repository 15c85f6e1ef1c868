"""From predicted canvases to ranked candidates: crop, undo the augmentation, count equal grids.

A canvas is cropped to the largest rectangle from its top-left corner whose cells are all colours (arXiv 2510.04871
follows the same rule); among equal areas the one of fewer rows is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dataset.augmentation import DIHEDRAL_INVERSE
from dataset.decoding import HEADER, _restore
from dataset.storage import PuzzleCatalog
from evaluators.inference.predictions import Predictions


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
