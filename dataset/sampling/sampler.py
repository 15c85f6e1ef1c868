"""Training batches, each a pure function of (data, seed, interval, step).

`dataset.sampling.interval_plan` draws what an interval visits.  Here its batches are read, and each rank gets its
slice.  Any batch can be made at any time on any rank, so that resuming or changing the number of ranks is arithmetic.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence

import numpy as np

from dataset.sampling.interval_plan import IntervalPlan, PlanRows, plan_interval, take_rows
from dataset.sampling.joined import Batch, JoinedSplits
from dataset.sampling.prefetch import prefetch
from dataset.storage import Split
from utils.errors import DataError, SettingError


class BatchSampler:
    """The training batches of one rank.

    An epoch visits every group once, or as often as its weight says, in random order.  A visit draws one puzzle of the
    group uniformly and takes its examples in random order.  Examples fill a batch until `global_batch_size`; a puzzle
    that does not fit is cut, and the next batch begins with the next visit.  The epochs of an interval are one stream,
    whose last incomplete batch is dropped.  The global batch does not depend on the number of ranks: a rank gets its
    contiguous slice.

    Args:
        splits: what to train on; several are joined group by group.
        global_batch_size: examples per step over all ranks.
        epochs_per_interval: epochs of one stream.
        seed: decides every draw; not negative.
        rank, world_size: which slice to return.
        identified, fresh: see `JoinedSplits`.

    Raises:
        SettingError, DataError: if the batch does not divide by the ranks, a setting is out of its range, a group is
            empty, or the splits do not fit together.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        global_batch_size: int,
        epochs_per_interval: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        identified: bool = False,
        fresh: bool = False,
    ) -> None:
        if global_batch_size < 1 or epochs_per_interval < 0 or seed < 0:
            raise SettingError(
                f"global_batch_size={global_batch_size} must be at least 1, and epochs={epochs_per_interval} and "
                f"seed={seed} must not be negative"
            )
        if global_batch_size % world_size:
            raise SettingError(
                f"global_batch_size={global_batch_size} does not divide by {world_size} ranks: "
                f"choose a multiple of {world_size}"
            )
        assert 0 <= rank < world_size, (rank, world_size)
        self.data = JoinedSplits(splits, identified=identified, fresh=fresh)
        if np.any(np.diff(self.data.layout.group_starts) < 1):
            raise DataError("a group of the data set has no puzzle: build the data set again")
        self.global_batch_size = global_batch_size
        self.epochs_per_interval = epochs_per_interval
        self.seed = seed
        self._rank, self._world_size = rank, world_size
        self._plan_lock = threading.Lock()
        self._latest: tuple[int, IntervalPlan] | None = None
        self._num_steps: dict[int, int] = {}

    def num_steps(self, interval: int) -> int:
        """Returns the number of batches of an interval, counted in its plan; 0 if its examples do not fill a batch."""
        if interval not in self._num_steps:
            self._plan(interval)
        return self._num_steps[interval]

    def total_steps(self, num_intervals: int) -> int:
        """Returns the number of batches of the first `num_intervals` intervals."""
        return sum(self.num_steps(interval) for interval in range(num_intervals))

    def batch(self, interval: int, step: int, micro_batch_size: int | None = None) -> Batch:
        """Returns this rank's slice of one global batch.

        Args:
            micro_batch_size: cut the global batch into micro-batches of this many examples over all ranks, and return
                this rank's slices of all of them, one after the other.

        Raises:
            IndexError: if the interval has no such step.
        """
        plan = self._plan(interval)
        if not 0 <= step < plan.num_steps:
            raise IndexError(f"interval {interval} has {plan.num_steps} steps, asked for step {step}")
        size = micro_batch_size or self.global_batch_size
        rows_of_rank = size // self._world_size
        firsts = range(self._rank * rows_of_rank, self.global_batch_size, size)
        slices = [take_rows(plan, step, first, first + rows_of_rank) for first in firsts]
        taken = PlanRows(*(np.concatenate(column) for column in zip(*slices, strict=True)))
        return self.data.read_batch(*taken)

    def stream(
        self, interval: int, start_step: int = 0, depth: int = 4, micro_batch_size: int | None = None
    ) -> Generator[Batch, None, None]:
        """Yields the batches of an interval from `start_step` on; a thread makes up to `depth` batches ahead.

        An error in the thread is raised here.  Closing the iterator ends the thread.
        """
        return prefetch(self._batches(interval, start_step, micro_batch_size), depth)

    def _batches(self, interval: int, start_step: int, micro_batch_size: int | None) -> Iterator[Batch]:
        for step in range(start_step, self.num_steps(interval)):
            yield self.batch(interval, step, micro_batch_size)

    def _plan(self, interval: int) -> IntervalPlan:
        """Returns the plan of an interval, and keeps it until another one is asked for."""
        with self._plan_lock:
            if self._latest is None or self._latest[0] != interval:
                plan = plan_interval(
                    self.data.layout,
                    self.global_batch_size,
                    self.epochs_per_interval,
                    self.seed,
                    interval,
                    self.data.group_weights,
                )
                self._latest = (interval, plan)
                self._num_steps[interval] = plan.num_steps
            return self._latest[1]
