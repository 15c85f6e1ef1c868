"""`Batch`, and `JoinedSplits`: the splits of several data sets as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.augmentation import IDENTITY_ROW
from dataset.canvas import Canvas
from dataset.sampling.fresh_augmentations import draw_augmentations
from dataset.storage import PuzzleIdentities, PuzzleLayout, Split
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

    layout: which puzzles a group has, which examples a puzzle has, and how many of them a visit takes.
    group_weights: float64 [G], visits of each group per epoch; None means one each.
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
        self.layout = PuzzleLayout.join([split.layout for split in self.splits])
        self.group_weights = _joined_weights(self.splits)
        self._puzzle_starts, self._split_starts = (
            np.cumsum([0, *counts]).astype(np.int64)
            for counts in zip(*((s.layout.num_puzzles, s.num_examples) for s in self.splits), strict=True)
        )

    @property
    def num_examples(self) -> int:
        return self.layout.num_examples

    @cached_property
    def _tasks_before(self) -> NDArray[np.int64]:
        """The number of tasks of the splits before each one, and of all."""
        return np.cumsum([0, *(split.num_tasks for split in self.splits)])

    @property
    def examples_per_epoch(self) -> float:
        """How many examples an epoch visits, on average."""
        layout, puzzles = self.layout, np.diff(self.layout.group_starts)
        counted = np.diff(layout.first_examples)
        if len(layout.visit_sizes) and len(layout.example_starts):  # puzzles of a group differ in what a visit takes
            counts = np.minimum(np.diff(layout.example_starts), np.repeat(layout.visit_sizes, puzzles))
            counted = np.bincount(np.repeat(np.arange(layout.num_groups), puzzles), counts, layout.num_groups)
        elif len(layout.visit_sizes):
            counted = np.minimum(layout.group_examples, layout.visit_sizes) * puzzles
        taken = counted / np.maximum(puzzles, 1)
        return float((taken if self.group_weights is None else taken * self.group_weights).sum())

    @property
    def num_task_rows(self) -> int | None:
        """The number of rows of a table of tasks, with that of no task; None if batches do not say tasks."""
        return 1 + int(self._tasks_before[-1]) if self.identified else None

    def identifiers_of(self, puzzles: NDArray[np.int64]) -> NDArray[np.int32]:
        """Returns the identifier of each puzzle [N]: int32 [N]."""
        identifiers = np.empty(len(puzzles), dtype=np.int32)
        for i, rows in _owners(self._puzzle_starts, puzzles):
            identifiers[rows] = self.splits[i].identifiers_of(puzzles[rows] - self._puzzle_starts[i])
        return identifiers

    def identities(self, puzzles: NDArray[np.int64]) -> PuzzleIdentities:
        """Returns the task and the augmentation of each puzzle [N]; the numbers of tasks run through all splits."""
        tasks = np.empty(len(puzzles), dtype=np.int32)
        augmentations = np.empty((len(puzzles), len(IDENTITY_ROW)), dtype=np.uint8)
        for i, rows in _owners(self._puzzle_starts, puzzles):
            own = self.splits[i].identities(puzzles[rows] - self._puzzle_starts[i])
            tasks[rows] = np.where(own.tasks > 0, own.tasks + self._tasks_before[i], 0)
            augmentations[rows] = own.augmentations
        return PuzzleIdentities(tasks, augmentations)

    @cached_property
    def _pair_sizes(self) -> list[NDArray[np.int16]]:
        return [split.pair_sizes() for split in self.splits]

    def pair_sizes(self) -> NDArray[np.int16]:
        """Returns the height and width of the canvas that each pair needs as it is, and turned: int16 [pairs, 2, 2].

        A fresh augmentation may turn an example, so it needs a canvas that holds it either way.

        Raises:
            SettingError: if the data set's format has the whole canvas alone.
        """
        sizes = np.concatenate(self._pair_sizes)
        turned = sizes[:, ::-1]
        if self.fresh:
            sizes = turned = np.maximum(sizes, turned)
        return np.stack((sizes, turned), axis=1)

    def pairs_of(self, puzzles: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Returns the first pair (of `pair_sizes`) of each puzzle [N], and whether its augmentation turns it."""
        first, is_turned = np.empty(len(puzzles), dtype=np.int64), np.empty(len(puzzles), dtype=np.bool_)
        before = np.cumsum([0, *map(len, self._pair_sizes)])
        for i, rows in _owners(self._puzzle_starts, puzzles):
            own = puzzles[rows] - self._puzzle_starts[i]
            first[rows], is_turned[rows] = self.splits[i].pairs_of(own)
            first[rows] += before[i]
        return first, is_turned

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
        identifiers = self.identifiers_of(puzzles)
        if drawn is not None:
            identifiers = np.full_like(identifiers, self.metadata.blank_identifier_id)
        if not self.identified:
            return Batch(inputs, labels, identifiers)
        tasks, stored = self.identities(puzzles)
        return Batch(inputs, labels, identifiers, tasks, stored if drawn is None else drawn)

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
        for i, rows in _owners(self._split_starts, examples):
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
        for i, rows in _owners(self._split_starts, examples):
            sizes[rows] = self.splits[i].canvas_sizes(examples[rows] - self._split_starts[i])
        return np.maximum(sizes, sizes[:, ::-1]) if self.fresh else sizes

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


def _owners(starts: NDArray[np.int64], numbers: NDArray[np.integer]) -> Iterator[tuple[int, Any]]:
    """Yields each split that has some of the numbers, by where splits start, and their positions in `numbers`."""
    if len(starts) == 2:
        yield 0, slice(None)
        return
    owner = np.searchsorted(starts, numbers, side="right") - 1
    for i in np.unique(owner):
        yield int(i), np.flatnonzero(owner == i)


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
    used = np.empty((0, 2), dtype=np.int64)
    for i, split in enumerate(splits):
        ranges = split.identifier_ranges()
        # The first range of one split that begins after a range of the other has begun overlaps it, if any does.
        for some, others in ((ranges, used), (used, ranges)):
            before = np.searchsorted(others[:, 0], some[:, 0], side="right") - 1
            overlaps = (before >= 0) & (some[:, 0] < others[before, 1]) if len(others) else np.zeros(0, dtype=bool)
            if overlaps.any():
                raise SettingError(
                    f"number {i + 1} of data_paths has puzzle identifiers of an earlier one (such as "
                    f"{some[overlaps, 0].min()}): build it with --puzzle-identifiers-start {int(used[:, 1].max())} or "
                    "higher"
                )
        used = np.concatenate((used, ranges))
        used = used[np.argsort(used[:, 0])]
