"""`Batch`, and `JoinedSplits`: the splits of several data sets as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.canvas import Canvas
from dataset.sampling.fresh_augmentations import draw_augmentations
from dataset.sampling.interval_plan import TAKE_ALL
from dataset.storage import PuzzleIdentities, Split, join_visit_sizes
from utils.errors import DataError, SettingError

_MUST_AGREE = ("seq_len", "row_stride", "vocab_size", "pad_id", "ignore_label_id", "blank_identifier_id")


@dataclass
class Batch:
    """Examples that are computed together, in host memory.

    inputs: uint8 [B, S] tokens.
    labels: uint8 [B, S] tokens; the data set's ignore id where there is nothing to learn.
    puzzle_identifiers: int32 [B]; the blank identifier in rows without an example, and where the augmentation is fresh.
    tasks, augmentations: int32 [B] and uint8 [B, 11], as `PuzzleIdentities`; None where nobody asks for them.
    """

    inputs: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    puzzle_identifiers: NDArray[np.int32]
    tasks: NDArray[np.int32] | None = None
    augmentations: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, first: int, end: int) -> Batch:
        """Returns the examples first..end, without a copy."""
        return self.take(slice(first, end))

    def take(self, rows: slice | NDArray[Any]) -> Batch:
        """Returns some of the examples."""
        arrays: list[Any] = [getattr(self, field.name) for field in fields(self)]
        taken: list[Any] = [None if array is None else array[rows] for array in arrays]
        return Batch(*taken)


class JoinedSplits:
    """Several splits as one; the numbers of groups, puzzles and examples run through all of them.

    group_starts: int64 [G + 1], the first puzzle of each group and the end.
    example_starts: int64 [P + 1], the first example of each puzzle and the end.
    puzzle_identifiers: int32 [P].
    group_weights: float64 [G], visits of each group per epoch; None means one each.
    visit_sizes: int64 [P], how many of a puzzle's examples a visit takes, at most; empty where every visit takes all.
    num_puzzle_identifiers: the number of rows of a puzzle table for all of them.

    Args:
        identified: batches say the task and the augmentation of each example.
        fresh: each visit has an augmentation of its own (`dataset.sampling.fresh_augmentations`), not a stored one.

    Raises:
        SettingError: if there is no split, if they differ in canvas or tokens, or if puzzles of two of them have the
            same identifier (both would train one row of the puzzle table).
    """

    def __init__(self, splits: Sequence[Split], *, identified: bool = False, fresh: bool = False) -> None:
        if not splits:
            raise SettingError("no data: name at least one data set in data_paths")
        self.splits, self.identified, self.fresh = list(splits), identified, fresh
        if fresh:
            for split in splits:
                split.check_takes_augmentations()
        self.metadata = self.splits[0].metadata
        _check_agreement(self.splits)
        self.num_puzzle_identifiers = max(int(split.metadata.num_puzzle_identifiers) for split in self.splits)
        self.group_starts = _chain([split.group_indices for split in self.splits])
        self.example_starts = _chain([split.puzzle_indices for split in self.splits])
        self.puzzle_identifiers = np.concatenate(
            [np.asarray(split.puzzle_identifiers, dtype=np.int32) for split in self.splits]
        )
        self.group_weights = _joined_weights(self.splits)
        sizes = join_visit_sizes([(split.visit_sizes, len(split.group_indices) - 1) for split in self.splits])
        self.visit_sizes = TAKE_ALL if sizes is None else np.repeat(sizes, np.diff(self.group_starts))
        ends = np.cumsum([int(split.puzzle_indices[-1]) for split in self.splits])
        self._split_starts = np.concatenate([[0], ends]).astype(np.int64)

    @property
    def num_examples(self) -> int:
        return int(self._split_starts[-1])

    @cached_property
    def identities(self) -> PuzzleIdentities:
        """The task and the augmentation of each puzzle; the numbers of tasks run through all splits."""
        each = [split.identities() for split in self.splits]
        before = np.cumsum([0, *(one.num_tasks for one in each)])
        tasks = [
            np.where(one.tasks > 0, one.tasks + first, 0).astype(np.int32)
            for one, first in zip(each, before, strict=False)
        ]
        return PuzzleIdentities(
            np.concatenate(tasks), np.concatenate([one.augmentations for one in each]), int(before[-1])
        )

    @property
    def examples_per_epoch(self) -> float:
        """How many examples an epoch visits, on average."""
        puzzles, counts = np.diff(self.group_starts), np.diff(self.example_starts)
        weights = np.ones(len(puzzles)) if self.group_weights is None else self.group_weights
        taken = np.minimum(counts, self.visit_sizes) if len(self.visit_sizes) else counts
        return float((np.repeat(weights / puzzles, puzzles) * taken).sum())

    @property
    def num_task_rows(self) -> int | None:
        """The number of rows of a table of tasks, with that of no task; None if batches do not say tasks."""
        return 1 + self.identities.num_tasks if self.identified else None

    def read_batch(
        self,
        examples: NDArray[np.int64],
        puzzles: NDArray[np.int64],
        visit_seeds: NDArray[np.uint64] | None = None,
        canvas: Canvas | None = None,
    ) -> Batch:
        """Returns examples [N] with what they are of.

        Args:
            puzzles: int64 [N], the puzzle of each example.
            visit_seeds, canvas: as of `Split.read`.
        """
        drawn = draw_augmentations(visit_seeds) if self.fresh and visit_seeds is not None else None
        inputs, labels = self.read(examples, visit_seeds, canvas, drawn)
        identifiers = self.puzzle_identifiers[puzzles]
        if drawn is not None:
            identifiers = np.full_like(identifiers, self.metadata.blank_identifier_id)
        if not self.identified:
            return Batch(inputs, labels, identifiers)
        augmentations = self.identities.augmentations[puzzles] if drawn is None else drawn
        return Batch(inputs, labels, identifiers, self.identities.tasks[puzzles], augmentations)

    def read(
        self,
        examples: NDArray[np.int64],
        visit_seeds: NDArray[np.uint64] | None = None,
        canvas: Canvas | None = None,
        augmentations: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Returns the inputs and the labels, uint8 [N, S] each, of examples [N] of all splits.

        Args: as of `Split.read`.

        Raises:
            DataError: if a token is outside of the vocabulary.
        """
        if len(self.splits) == 1:
            return self._check_tokens(*self.splits[0].read(examples, visit_seeds, canvas, augmentations))
        inputs = np.empty((len(examples), (canvas or self.metadata.canvas).cells), dtype=np.uint8)
        labels = np.empty_like(inputs)
        for i, rows in self._owners(examples):
            seeds = None if visit_seeds is None else visit_seeds[rows]
            drawn = None if augmentations is None else augmentations[rows]
            own = examples[rows] - self._split_starts[i]
            inputs[rows], labels[rows] = self.splits[i].read(own, seeds, canvas, drawn)
        return self._check_tokens(inputs, labels)

    def canvas_sizes(self, examples: NDArray[np.int64]) -> NDArray[np.int16]:
        """Returns the height and width of the canvas that each example [N] needs: int16 [N, 2].

        A fresh augmentation may turn an example, so it needs a canvas that holds it either way.
        """
        sizes = np.empty((len(examples), 2), dtype=np.int16)
        for i, rows in self._owners(examples):
            sizes[rows] = self.splits[i].canvas_sizes(examples[rows] - self._split_starts[i])
        return np.maximum(sizes, sizes[:, ::-1]) if self.fresh else sizes

    def _owners(self, examples: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yields each split that has some of the examples, and the positions of these in `examples`."""
        owner = np.searchsorted(self._split_starts, examples, side="right") - 1
        for i in np.unique(owner):
            yield int(i), np.flatnonzero(owner == i)

    def _check_tokens(
        self, inputs: NDArray[np.uint8], labels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Returns the rows, if the network has an embedding for each token.  A GPU would fail with an obscure error."""
        largest = max(int(inputs.max(initial=0)), int(labels.max(initial=0)))
        if largest >= self.metadata.vocab_size:
            raise DataError(
                f"the data set contains token {largest}, but its vocabulary has {self.metadata.vocab_size} tokens: "
                "build it again"
            )
        return inputs, labels


def _chain(starts: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Joins several lists of starts, each with its end, into one."""
    chained = [np.zeros(1, dtype=np.int64)]
    for part in starts:
        chained.append(chained[-1][-1] + np.asarray(part[1:], dtype=np.int64))
    return np.concatenate(chained)


def _joined_weights(splits: Sequence[Split]) -> NDArray[np.float64] | None:
    if all(split.group_weights is None for split in splits):
        return None
    every = (np.ones(len(s.group_indices) - 1) if s.group_weights is None else s.group_weights for s in splits)
    return np.concatenate(list(every))


def _check_agreement(splits: Sequence[Split]) -> None:
    first = splits[0].metadata
    for i, split in enumerate(splits[1:], start=1):
        for name in _MUST_AGREE:
            if getattr(split.metadata, name) != getattr(first, name):
                raise SettingError(
                    f"data sets that are trained together must agree in {name}: the first has {getattr(first, name)}, "
                    f"number {i + 1} of data_paths has {getattr(split.metadata, name)}"
                )
    if len(splits) == 1:
        return
    used = np.empty(0, dtype=np.int32)
    for i, split in enumerate(splits):
        identifiers = np.unique(np.asarray(split.puzzle_identifiers))
        identifiers = identifiers[identifiers != first.blank_identifier_id]
        shared = np.intersect1d(used, identifiers, assume_unique=True)
        if len(shared):
            raise SettingError(
                f"number {i + 1} of data_paths has puzzle identifiers of an earlier one (such as {shared[0]}): "
                f"build it with --puzzle-identifiers-start {int(np.max(used)) + 1} or higher"
            )
        used = np.union1d(used, identifiers)
