"""Training and evaluation batches, each a pure function of (data, seed, interval, step).

What an interval visits is drawn in `dataset.visits`; here splits are joined, batches read and ranks served.  Any batch
can be made at any time on any rank, so that resuming or changing the number of ranks is arithmetic.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dataset.canvases import Canvas
from dataset.prefetch import prefetch
from dataset.visits import IntervalPlan, plan_interval, take_rows

if TYPE_CHECKING:
    from dataset.storage import Split

_MUST_AGREE = ("seq_len", "row_stride", "vocab_size", "pad_id", "ignore_label_id", "blank_identifier_id")


@dataclass
class Batch:
    """Examples side by side, in host memory.

    inputs: uint8 [B, S] tokens.
    labels: uint8 [B, S] tokens, the data set's ignore id where there is nothing to learn.
    puzzle_identifiers: int32 [B], the blank identifier for padding.
    """

    inputs: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    puzzle_identifiers: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, first: int, end: int) -> Batch:
        """Some of the examples, without a copy."""
        return Batch(self.inputs[first:end], self.labels[first:end], self.puzzle_identifiers[first:end])


class JoinedSplits:
    """Several splits as one, their groups, puzzles and examples counted through.

    group_starts: int64 [G + 1], the first puzzle of each group and the end.
    example_starts: int64 [P + 1], the first example of each puzzle and the end.
    puzzle_identifiers: int32 [P].
    group_weights: float64 [G], visits of each group per epoch; None: one each.
    num_puzzle_identifiers: how many rows a table for all of them needs.

    Raises:
        ValueError: if there is no split, if they differ in canvas or tokens, or if two of them give the same
            identifier to their puzzles (they would train one row of the puzzle table for both).
    """

    def __init__(self, splits: Sequence[Split]) -> None:
        if not splits:
            raise ValueError("no data: name at least one data set in data_paths")
        self.splits = list(splits)
        self.metadata = self.splits[0].metadata
        _check_agreement(self.splits)
        self.num_puzzle_identifiers = max(int(split.metadata.num_puzzle_identifiers) for split in self.splits)
        self.group_starts = _chain([split.group_indices for split in self.splits])
        self.example_starts = _chain([split.puzzle_indices for split in self.splits])
        self.puzzle_identifiers = np.concatenate(
            [np.asarray(split.puzzle_identifiers, dtype=np.int32) for split in self.splits]
        )
        self.group_weights = _joined_weights(self.splits)
        ends = np.cumsum([int(split.puzzle_indices[-1]) for split in self.splits])
        self._split_starts = np.concatenate([[0], ends]).astype(np.int64)

    @property
    def num_examples(self) -> int:
        return int(self._split_starts[-1])

    def read(
        self,
        examples: NDArray[np.int64],
        visit_seeds: NDArray[np.uint64] | None = None,
        canvas: Canvas | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Inputs and labels, each uint8 [N, S], of examples [N] counted through all splits."""
        if len(self.splits) == 1:
            return self._checked(*self.splits[0].read(examples, visit_seeds, canvas))
        inputs = np.empty((len(examples), (canvas or self.metadata.canvas).cells), dtype=np.uint8)
        labels = np.empty_like(inputs)
        for i, rows in self._owners(examples):
            seeds = None if visit_seeds is None else visit_seeds[rows]
            inputs[rows], labels[rows] = self.splits[i].read(examples[rows] - self._split_starts[i], seeds, canvas)
        return self._checked(inputs, labels)

    def extents(self, examples: NDArray[np.int64]) -> NDArray[np.int16]:
        """Height and width of the canvas that each example [N] needs, int16 [N, 2]."""
        found = np.empty((len(examples), 2), dtype=np.int16)
        for i, rows in self._owners(examples):
            found[rows] = self.splits[i].extents(examples[rows] - self._split_starts[i])
        return found

    def _owners(self, examples: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Each split that has some of the examples, and which of them."""
        owner = np.searchsorted(self._split_starts, examples, side="right") - 1
        for i in np.unique(owner):
            yield int(i), np.flatnonzero(owner == i)

    def _checked(
        self, inputs: NDArray[np.uint8], labels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The rows, if the network has an embedding for every token of theirs; on a GPU none would end in a riddle."""
        largest = max(int(inputs.max(initial=0)), int(labels.max(initial=0)))
        if largest >= self.metadata.vocab_size:
            raise ValueError(
                f"the data hold token {largest}, but dataset.json names a vocabulary of {self.metadata.vocab_size}: "
                "build the data set anew"
            )
        return inputs, labels


class BatchSampler:
    """The training batches of one rank.

    An epoch visits every group once, or as often as its weight says, in random order; a visit draws one puzzle of the
    group uniformly and takes its examples in random order.  Examples are packed until `global_batch_size`; a puzzle
    that does not fit is cut and the next batch begins with the next visit.  The epochs of an interval are one stream,
    its last incomplete batch is dropped.  The global batch does not depend on the number of ranks: a rank gets its
    contiguous slice.

    Args:
        splits: what to train on; several are joined group by group.
        global_batch_size: examples per step over all ranks.
        epochs_per_interval: epochs of one stream.
        seed: of every draw, not negative.
        rank, world_size: which slice is ours.

    Raises:
        ValueError: if the batch does not divide by the ranks, a setting is out of its range, a group is empty, or the
            splits do not fit together.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        global_batch_size: int,
        epochs_per_interval: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if global_batch_size < 1 or epochs_per_interval < 0 or seed < 0:
            raise ValueError(
                "global_batch_size must be at least 1, epochs and seed not negative; "
                f"got {global_batch_size}, {epochs_per_interval} and {seed}"
            )
        if global_batch_size % world_size:
            raise ValueError(
                f"global_batch_size={global_batch_size} does not divide by {world_size} ranks: "
                f"choose a multiple of {world_size}"
            )
        assert 0 <= rank < world_size, (rank, world_size)
        self.data = JoinedSplits(splits)
        if np.any(np.diff(self.data.group_starts) < 1):
            raise ValueError("a group of the data set has no puzzle: build the data set again")
        self.global_batch_size = global_batch_size
        self.epochs_per_interval = epochs_per_interval
        self.seed = seed
        self._rank, self._world_size = rank, world_size
        self._planning = threading.Lock()
        self._latest: tuple[int, IntervalPlan] | None = None
        self._num_steps: dict[int, int] = {}

    def num_steps(self, interval: int) -> int:
        """The batches of an interval, counted by planning it; 0 if its examples do not fill one batch."""
        if interval not in self._num_steps:
            self._plan(interval)
        return self._num_steps[interval]

    def total_steps(self, num_intervals: int) -> int:
        """The batches of the first `num_intervals` intervals."""
        return sum(self.num_steps(interval) for interval in range(num_intervals))

    def batch(self, interval: int, step: int, chunk_size: int | None = None) -> Batch:
        """This rank's slice of one global batch.

        Args:
            chunk_size: the batch is taken apart into chunks of so many examples, and this rank's slices of all of
                them follow each other.

        Raises:
            IndexError: if the interval has no such step.
        """
        plan = self._plan(interval)
        if not 0 <= step < plan.num_steps:
            raise IndexError(f"interval {interval} has {plan.num_steps} steps, asked for step {step}")
        size = chunk_size or self.global_batch_size
        share = size // self._world_size
        firsts = range(self._rank * share, self.global_batch_size, size)
        taken = [take_rows(plan, step, self.data.example_starts, first, first + share) for first in firsts]
        examples, puzzles, seeds = (np.concatenate(column) for column in zip(*taken, strict=True))
        inputs, labels = self.data.read(examples, seeds)
        return Batch(inputs, labels, self.data.puzzle_identifiers[puzzles])

    def stream(
        self, interval: int, start_step: int = 0, depth: int = 4, chunk_size: int | None = None
    ) -> Generator[Batch, None, None]:
        """The batches of an interval from `start_step` on, made by a thread that is up to `depth` batches ahead.

        What goes wrong in the thread is raised here; closing the iterator ends the thread.
        """
        return prefetch(self._batches(interval, start_step, chunk_size), depth)

    def _batches(self, interval: int, start_step: int, chunk_size: int | None) -> Iterator[Batch]:
        for step in range(start_step, self.num_steps(interval)):
            yield self.batch(interval, step, chunk_size)

    def _plan(self, interval: int) -> IntervalPlan:
        """The plan of an interval; the latest one is kept."""
        with self._planning:
            if self._latest is None or self._latest[0] != interval:
                plan = plan_interval(
                    self.data.group_starts,
                    self.data.example_starts,
                    self.global_batch_size,
                    self.epochs_per_interval,
                    self.seed,
                    interval,
                    self.data.group_weights,
                )
                self._latest = (interval, plan)
                self._num_steps[interval] = plan.num_steps
            return self._latest[1]


class EvalBatches:
    """All examples in order, each exactly once over all ranks, without random offsets.

    A rank gets its contiguous slice of every global batch; the last one is filled up with blank rows.  All ranks make
    the same number of steps.

    Args:
        splits: what to read; several are joined.
        batch_size: examples per step over all ranks, rounded up to a multiple of their number.
        examples: int [N], which ones and in which order; None for all.
        canvas: show the top-left part of the whole canvas alone, which must hold the inputs.  Labels are left out then:
            they may be larger.

    Yields:
        (int64 [B] index of each example, -1 for a blank row; the batch), B = batch_size / world_size.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        examples: NDArray[Any] | None = None,
        canvas: Canvas | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"the batch size must be at least 1, got {batch_size}")
        assert 0 <= rank < world_size, (rank, world_size)
        self.data = JoinedSplits(splits)
        self._examples = np.arange(self.data.num_examples) if examples is None else np.asarray(examples, dtype=np.int64)
        outside = (self._examples < 0) | (self._examples >= self.data.num_examples)
        if np.any(outside):
            raise ValueError(
                f"example {self._examples[outside][0]} does not exist: there are {self.data.num_examples} examples"
            )
        whole = self.data.metadata.canvas
        self._canvas = None if canvas == whole else canvas
        self._cells = (canvas or whole).cells
        self._rank = rank
        self._share = math.ceil(batch_size / world_size)
        self.stride = self._share * world_size

    def __len__(self) -> int:
        return math.ceil(len(self._examples) / self.stride)

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        for step in range(len(self)):
            first = step * self.stride + self._rank * self._share
            yield self._padded(self._examples[first : first + self._share])

    def _padded(self, examples: NDArray[np.int64]) -> tuple[NDArray[np.int64], Batch]:
        metadata = self.data.metadata
        B, N = self._share, len(examples)
        indices = np.full(B, -1, dtype=np.int64)
        inputs = np.full((B, self._cells), metadata.pad_id, dtype=np.uint8)
        unlabelled = metadata.pad_id if metadata.ignore_label_id is None else metadata.ignore_label_id
        labels = np.full((B, self._cells), unlabelled, dtype=np.uint8)
        identifiers = np.full(B, metadata.blank_identifier_id, dtype=np.int32)
        if N:
            indices[:N] = examples
            if self._canvas is None:
                inputs[:N], labels[:N] = self.data.read(examples)
            else:
                shown = self.data.read(examples)[0].reshape(N, *metadata.canvas)
                inputs[:N] = shown[:, : self._canvas.height, : self._canvas.width].reshape(N, -1)
            puzzles = np.searchsorted(self.data.example_starts, examples, side="right") - 1
            identifiers[:N] = self.data.puzzle_identifiers[puzzles]
        return indices, Batch(inputs, labels, identifiers)


def _chain(starts: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Several lists of starts (each with its end) as one."""
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
                raise ValueError(
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
            raise ValueError(
                f"number {i + 1} of data_paths has puzzle identifiers of an earlier one (such as {shared[0]}): "
                f"build it with --puzzle-identifiers-start {int(np.max(used)) + 1} or higher"
            )
        used = np.union1d(used, identifiers)
