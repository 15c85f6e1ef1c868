"""Gives a test split more augmentations to vote than its data set stores (`vote_augmentations`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dataset.build.distinct_augmentations import extend_augmentations
from dataset.sampling.drawn_puzzles import DrawnSplit
from dataset.storage import PuzzleCatalog, Split
from dataset.tasks import Task
from utils.progress import print0


def extend_puzzles(split: Split, catalog: PuzzleCatalog, tasks: Mapping[str, Task], count: int, seed: int) -> Split:
    """Returns the split with `count` puzzles of each task: its stored ones first, then augmentations that are drawn.

    A drawn puzzle differs from all others of its task in what the network sees, so a task with much symmetry may have
    fewer than `count`.  Test outputs are not looked at.  What is drawn follows from the seed and the task alone.  The
    expanded format has no grids to augment: such a split stays as it is, and says so.

    Args:
        tasks: by id; all tasks of the split.
    """
    starts = split.layout.group_starts
    stored = np.diff(starts)
    if (stored >= count).all():
        return split
    if not split.takes_augmentations:
        print0(
            f"vote_augmentations={count}: the puzzles that are stored vote, at most {stored.max(initial=0)} of a task, "
            "since the expanded format has no grids to augment: build with --format compact for more"
        )
        return split
    numbers = split.identities(starts[:-1]).tasks
    drawn = []
    for number, first, end in zip(numbers.tolist(), starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        task = tasks[catalog.task_ids[number - 1]]
        shown = replace(task, test=tuple((grid, None) for grid, _ in task.test))
        known = np.array(split.identities(np.arange(first, end)).augmentations)
        drawn.append(extend_augmentations(shown, known, count - 1, seed)[len(known) :])
    return DrawnSplit(split, drawn)
