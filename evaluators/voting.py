"""Counts votes: predicted canvases become grids of the original task, and equal grids are counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dataset.decoding import HEADER, restore_grids
from dataset.storage import PuzzleCatalog
from evaluators.inference.predictions import Predictions
from utils.errors import SubmissionError


@dataclass(frozen=True)
class Candidate:
    """A grid [h, w] with the number of its votes, and the mean and sum of sigmoid(halting logit) over them.

    Where votes have weights, their sum takes the place of the number, and mean and sum are weighted.
    """

    grid: np.ndarray
    votes: float
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


def vote_weight(age: int, half_life: float | None) -> float:
    """Returns 2^(-age / half_life), the weight of a vote of `age` evaluations ago; 1 without a half-life."""
    return 1.0 if half_life is None else 2.0 ** (-age / half_life)


def weights_of(parts: Sequence[Predictions], weights: Sequence[float]) -> np.ndarray | None:
    """Returns the weight of each prediction of `parts` joined, float64 [N]; None if all weights are 1.

    Args:
        weights: of each part.
    """
    if all(weight == 1 for weight in weights):
        return None
    return np.repeat(np.asarray(weights, dtype=np.float64), [len(part) for part in parts])


def count_votes(
    predictions: Predictions, catalog: PuzzleCatalog, ranking: str = "votes", weights: np.ndarray | None = None
) -> Votes:
    """Returns the ranked candidates of every test input that has predictions.

    By default a candidate ranks by votes, then by the mean sigmoid of its halting logits, high first.  The grid itself
    breaks ties, so that neither the number of ranks nor the order of predictions matters.

    Args:
        weights: float64 [N], what each prediction counts; None: one vote each.

    Raises:
        SubmissionError: if an identifier does not name a puzzle of the catalog.
    """
    identifiers = predictions.puzzle_identifiers
    _check_identifiers(identifiers, catalog)
    augmentations = catalog.augmentations_of(identifiers)
    if predictions.augmentations is not None:
        is_drawn = predictions.augmentations.any(1)
        augmentations[is_drawn] = predictions.augmentations[is_drawn]
    rows = restore_grids(predictions.tokens, augmentations[:, 0].copy(), augmentations[:, 1:].copy())
    halts = 1 / (1 + np.exp(-np.clip(predictions.q_halt.astype(np.float64), -700, 700)))

    halts_of: dict[tuple[int, int], dict[bytes, list[tuple[float, float]]]] = {}
    tasks = catalog.tasks_of(identifiers).tolist()
    counted = [1] * len(tasks) if weights is None else weights.tolist()
    given = zip(tasks, predictions.test_index.tolist(), rows, halts.tolist(), counted, strict=True)
    for task, index, row, halt, weight in given:
        if row[0]:
            grid = row[: HEADER + int(row[0]) * int(row[1])].tobytes()
            halts_of.setdefault((task, index), {}).setdefault(grid, []).append((weight, halt))
    return {
        (catalog.task_ids[task], index): _rank(halts_of_grid, ranking)
        for (task, index), halts_of_grid in sorted(halts_of.items())
    }


def _check_identifiers(identifiers: np.ndarray, catalog: PuzzleCatalog) -> None:
    if len(identifiers) and not 0 <= identifiers.min() <= identifiers.max() < len(catalog):
        raise SubmissionError(
            f"the predictions name puzzles up to {identifiers.max()}, the data set has {len(catalog)}: "
            "use the data set that was predicted"
        )
    if (catalog.tasks_of(identifiers) < 0).any():
        raise SubmissionError("the predictions name the blank puzzle: predict again")


def _rank(halts_of_grid: dict[bytes, list[tuple[float, float]]], ranking: str) -> list[Candidate]:
    candidates = []
    for row, halts in halts_of_grid.items():
        grid = np.frombuffer(row, dtype=np.uint8, offset=HEADER).reshape(row[0], row[1])
        # exact sums, so that the order of the predictions does not matter
        total = math.fsum(weight * halt for weight, halt in halts)
        weights = [weight for weight, _ in halts]
        votes = sum(weights) if isinstance(weights[0], int) else math.fsum(weights)
        candidates.append(Candidate(grid, votes, total / votes, total))
    return sorted(candidates, key=lambda c: (*(-value for value in RANKINGS[ranking](c)), c.content))
