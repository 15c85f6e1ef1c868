"""Shows a data set before training: augmented puzzles as one visit shows them to the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dataset.augmentation import Augmentation
from dataset.storage import PuzzleCatalog, Split, open_catalog, open_split
from utils.errors import DataError

SIGNS = ".e0123456789"
"""The sign of each token: PAD, EOS, then the colours."""


def describe_data_set(data: Path, most: int = 200, puzzles: int = 4, seed: int = 0) -> tuple[str, dict[str, Any]]:
    """Returns title and content (see `render_page`) of the page of a data set.

    Args:
        most: tasks at most.
        puzzles: of each task.
        seed: of the visits.
    """
    split, catalog = open_split(data, "train"), open_catalog(data)
    tasks = []
    for group in range(min(most, len(split.group_indices) - 1)):
        first, end = int(split.group_indices[group]), int(split.group_indices[group + 1])
        tasks += [_describe_visit(split, catalog, puzzle, seed) for puzzle in range(first, min(end, first + puzzles))]
    return f"{data.name}: as the model sees it", {"tasks": tasks}


def describe_puzzle(data: Path, name: str, seed: int = 0) -> dict[str, Any]:
    """Returns one puzzle of a data set's train split as one visit shows it.

    Args:
        name: of the puzzle; a task's id names its un-augmented puzzle.
        seed: of the visit.

    Raises:
        DataError: if there is no such puzzle.
    """
    split, catalog = open_split(data, "train"), open_catalog(data)
    task, augmentation = Augmentation.parse(name)
    named = split.restricted_to(catalog.identifiers_of(task))
    puzzles = np.flatnonzero(np.isin(named.puzzle_identifiers, catalog.identifiers_of(task, augmentation)))
    if not len(puzzles):
        raise DataError(f"{name[:80]!r} is not a puzzle that {data} trains on: name one that its page lists")
    return _describe_visit(named, catalog, int(puzzles[0]), seed)


def _describe_visit(split: Split, catalog: PuzzleCatalog, puzzle: int, seed: int) -> dict[str, Any]:
    """Returns what `describe_tasks` returns of a task, for one puzzle of a split: whole canvases, no tests."""
    side = round(split.metadata.seq_len**0.5)
    (first, end), (identifier,) = split.layout.starts(puzzle, puzzle + 1), split.identifiers_of(np.array([puzzle]))
    examples = np.arange(first, end)
    inputs, labels = split.read(examples, np.full(len(examples), seed + 1, dtype=np.uint64))
    canvases = [
        {"input": _format_canvas(a, side), "output": _format_canvas(b, side)}
        for a, b in zip(inputs, labels, strict=True)
    ]
    return {"id": catalog.name(int(identifier)), "train": canvases, "test": []}


def _format_canvas(canvas: np.ndarray, side: int) -> str:
    """Returns a whole canvas as text: colours as digits, PAD as `.`, EOS as `e`."""
    return "/".join("".join(SIGNS[token] for token in row) for row in canvas.reshape(side, side))
