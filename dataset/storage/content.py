"""What a data set consists of, before it has a format: puzzles and where they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dataset.encoding import MAX_GRID, VOCAB_SIZE
from dataset.storage.schema import SET, SPLITS, SplitMetadata
from dataset.tasks import Pair, Task


@dataclass(frozen=True)
class GeneratedPairs:
    """Generated pairs of a training task, which are trained on beside its own, as the same puzzles.

    subset: that they come from.  weight: visits of them per epoch.
    """

    task_id: str
    subset: str
    pairs: tuple[Pair, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class AugmentedTasks:
    """ARC tasks, and for each of them the augmentations that make its puzzles.

    tasks: in the order of their identifiers.
    test_ids: ids of the tasks whose test pairs are the test split.
    augmentations: for each task uint8 [puzzles, 11] (dihedral transform, ten colours), the identity first.
    side: the side of the square canvas, in cells.
    identifiers_start: the identifier of the first puzzle.
    weights: visits of each task per epoch; None means one each.
    generated: more pairs of some of the tasks, in the train split; a task may have several.
    """

    tasks: list[Task]
    test_ids: set[str]
    augmentations: list[np.ndarray]
    side: int = MAX_GRID
    identifiers_start: int = 1
    weights: list[float] | None = None
    generated: list[GeneratedPairs] = field(default_factory=list)

    def __post_init__(self) -> None:
        scored = [more.task_id for more in self.generated if more.task_id in self.test_ids]
        assert not scored, f"generated pairs of {scored[0]}, which is scored"

    @property
    def num_puzzles(self) -> int:
        return sum(map(len, self.augmentations))

    def generated_in(self, split: str) -> list[tuple[GeneratedPairs, np.ndarray]]:
        """Returns the generated pairs of a split, each with the augmentations of its task."""
        if split == "test" or not self.generated:
            return []
        rows_of = {task.id: rows for task, rows in zip(self.tasks, self.augmentations, strict=True)}
        return [(more, rows_of[more.task_id]) for more in self.generated]

    def all_pairs(self) -> Iterator[tuple[Pair, ...]]:
        """Yields the pairs of each task, then those that extend tasks: the order in which they are stored."""
        yield from (task.pairs for task in self.tasks)
        yield from (more.pairs for more in self.generated)

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
        own = sum(len(self.pairs_of(task, split)) * len(rows) for task, rows in self.in_split(split))
        return own + sum(len(more.pairs) * len(rows) for more, rows in self.generated_in(split))

    def metadata(self, split: str) -> SplitMetadata:
        """Returns the content of a split's `dataset.json`."""
        groups = [rows for _, rows in self.in_split(split)] + [rows for _, rows in self.generated_in(split)]
        puzzles = sum(map(len, groups))
        return SplitMetadata(
            vocab_size=VOCAB_SIZE,
            seq_len=self.side**2,
            num_puzzle_identifiers=self.identifiers_start + self.num_puzzles,
            total_groups=len(groups),
            mean_puzzle_examples=self.num_examples(split) / puzzles if puzzles else 0.0,
            total_puzzles=puzzles,
            sets=[SET],
            row_stride=None if self.side == MAX_GRID else MAX_GRID,
        )

    def counts(self) -> dict[str, int]:
        """Returns how much of everything there is, for the manifest."""
        counted = {"tasks": len(self.tasks), "test_tasks": len(self.test_ids), "puzzles": self.num_puzzles}
        if self.generated:
            counted["generated_pairs"] = sum(len(more.pairs) for more in self.generated)
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
