"""Training and evaluation batches, each a pure function of (data, seed, interval, step).

What an interval visits is drawn in `dataset.sampling.interval_plan`; here batches are read and ranks served.  Any
batch can be made at any time on any rank, so that resuming or changing the number of ranks is arithmetic.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dataset.sampling.interval_plan import IntervalPlan, plan_interval, take_rows
from dataset.sampling.prefetch import prefetch

if TYPE_CHECKING:
    from dataset.storage import Split
from dataset.sampling.joined import Batch, JoinedSplits


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
