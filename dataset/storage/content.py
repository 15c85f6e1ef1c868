"""What a data set consists of, before it has a format: puzzles and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dataset.encoding import MAX_GRID, VOCAB_SIZE
from dataset.storage.schema import SET, SPLITS, SplitMetadata
from dataset.tasks import Pair, Task


@dataclass(frozen=True)
class AugmentedTasks:
    """ARC tasks, and for each of them the augmentations that make its puzzles.

    tasks: in the order of their identifiers.
    test_ids: ids of the tasks whose test pairs are the test split.
    augmentations: for each task uint8 [puzzles, 11] (dihedral transform, ten colours), the identity first.
    side: the side of the square canvas, in cells.
    identifiers_start: the identifier of the first puzzle.
    weights: visits of each task per epoch; None means one each.
    """

    tasks: list[Task]
    test_ids: set[str]
    augmentations: list[np.ndarray]
    side: int = MAX_GRID
    identifiers_start: int = 1
    weights: list[float] | None = None

    @property
    def num_puzzles(self) -> int:
        return sum(map(len, self.augmentations))

    def in_split(self, split: str) -> list[tuple[Task, np.ndarray]]:
        """Returns the tasks of a split, each with its augmentations."""
        both = zip(self.tasks, self.augmentations, strict=True)
        return [(task, rows) for task, rows in both if split == "train" or task.id in self.test_ids]

    def pairs_of(self, task: Task, split: str) -> tuple[Pair, ...]:
        """Returns the pairs of a task that belong to a split.  Test outputs of test tasks never reach the train
        split."""
        if split == "test":
            return task.test
        return task.train if task.id in self.test_ids else task.pairs

    def num_examples(self, split: str) -> int:
        return sum(len(self.pairs_of(task, split)) * len(rows) for task, rows in self.in_split(split))

    def metadata(self, split: str) -> SplitMetadata:
        """Returns the content of a split's `dataset.json`."""
        included = self.in_split(split)
        puzzles = sum(len(rows) for _, rows in included)
        return SplitMetadata(
            vocab_size=VOCAB_SIZE,
            seq_len=self.side**2,
            num_puzzle_identifiers=self.identifiers_start + self.num_puzzles,
            total_groups=len(included),
            mean_puzzle_examples=self.num_examples(split) / puzzles if puzzles else 0.0,
            total_puzzles=puzzles,
            sets=[SET],
            row_stride=None if self.side == MAX_GRID else MAX_GRID,
        )

    def counts(self) -> dict[str, int]:
        """Returns how much of everything there is, for the manifest."""
        counted = {"tasks": len(self.tasks), "test_tasks": len(self.test_ids), "puzzles": self.num_puzzles}
        return counted | {f"{split}_examples": self.num_examples(split) for split in SPLITS}


@dataclass(frozen=True)
class PlainExamples:
    """A split of puzzles that have one example each and share the blank identifier, such as Sudoku boards.

    inputs, labels: tokens, uint8 [N, seq_len].
    group_sizes: number of puzzles in each group, in order.
    """

    inputs: np.ndarray
    labels: np.ndarray
    group_sizes: np.ndarray

    def metadata(self, vocab_size: int) -> SplitMetadata:
        """Returns the content of the split's `dataset.json`."""
        return SplitMetadata(
            vocab_size=vocab_size,
            seq_len=self.inputs.shape[1],
            num_puzzle_identifiers=1,
            total_groups=len(self.group_sizes),
            mean_puzzle_examples=1.0,
            total_puzzles=len(self.inputs),
            sets=[SET],
        )


@dataclass(frozen=True)
class DataOrigin:
    """What the manifest records about how a data set was made.

    sources: names of the sources, without their paths.
    settings: the settings that decide which puzzles it contains.
    counts: numbers to record besides those of tasks, puzzles and examples.
    task_keys: for each task "whole" or "demonstrations", by `dataset.build.duplicate_tasks.inputs_key`: which of its
        pairs are trained on.
    """

    sources: list[str]
    settings: dict[str, Any]
    counts: dict[str, int] = field(default_factory=dict)
    task_keys: dict[str, str] = field(default_factory=dict)
