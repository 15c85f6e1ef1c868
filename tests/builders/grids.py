"""Makes grids, tasks and candidates by hand, and encodes single grids, in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from dataset.encoding import COLOUR_0, EOS, PAD
from dataset.tasks import Task
from evaluators.voting import Candidate


def encode_grid(grid: np.ndarray, side: int, row: int = 0, col: int = 0) -> np.ndarray:
    """Returns `grid` [h, w] at (row, col) of a canvas, as tokens uint8 [side * side]."""
    h, w = grid.shape
    assert row >= 0 <= col and row + h <= side >= col + w, (grid.shape, row, col, side)
    canvas = np.full((side, side), PAD, dtype=np.uint8)
    canvas[row : row + h, col : col + w] = grid + COLOUR_0
    canvas[row + h : row + h + 1, col : col + w] = EOS
    canvas[row : row + h, col + w : col + w + 1] = EOS
    return canvas.reshape(-1)


def grid_of(cells: Any) -> np.ndarray:
    """Returns nested lists of colours as a grid."""
    return np.array(cells, dtype=np.uint8)


def task_of(name: str, train: list[tuple[Any, Any]], test: list[tuple[Any, Any]]) -> Task:
    """Returns a task of these pairs of nested lists; the output of a test pair may be None."""
    pairs = [[(grid_of(a), None if b is None else grid_of(b)) for a, b in side] for side in (train, test)]
    return Task(name, "", tuple(pairs[0]), tuple(pairs[1]))


def candidate_of(cells: Any, votes: float = 1, halt: float = 0.5) -> Candidate:
    """Returns a candidate with so many votes, each with the same halting probability."""
    return Candidate(grid_of(cells), votes, halt, halt * votes)
