"""The streams of examples of several canvases; the examples of one canvas are a bucket.

Each bucket has an endless stream of its own: of the visits of epoch after epoch (`dataset.sampling.interval_plan`) it
takes the examples that belong on its canvas.  Streams are read at their own speeds.  Each visits every one of its
examples equally often, as the single stream of the whole canvas does.

    visits:  | a a a | b b | c c c c | ...
    11 x 11: | a     | b b |   c     | ...
    30 x 30: |   a a |     | c   c c | ...
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dataset.canvas import Canvas, assign_canvases
from dataset.sampling.interval_plan import PlanRows, interval_seed, take_bucket
from dataset.sampling.joined import Batch, JoinedSplits
from dataset.sampling.prefetch import prefetch
from dataset.sampling.visits import IntervalVisits, Visits
from dataset.storage import count_examples, count_taken
from utils.errors import SettingError

VisitedPairs = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""What `JoinedSplits.pairs_of` returns of some visits."""

LEAST_EPOCHS = 17
"""A segment of a stream has at least this many epochs, and more for a bucket with few examples.  The number is odd:
else groups of a fractional weight would meet the end of a segment always at the same phase."""

LEAST_MICRO_BATCHES = 16
"""A segment has at least this many micro-batches, since its last, incomplete one is dropped."""


class Position(NamedTuple):
    """Where a stream continues: the segment, and the micro-batch within it."""

    segment: int = 0
    micro_batch: int = 0


class BucketStreams:
    """The streams of all buckets.  A rank gets its contiguous slice of every micro-batch.

    Args:
        data: what to train on.
        canvases: the canvas of each bucket, small ones first; the last one holds every example.
        seed: decides every draw.

    Attributes:
        fractions: float64 [buckets], how much of all visited examples each bucket has.

    Raises:
        SettingError: if the data set's format has the whole canvas alone, or an example fits none of the canvases.
    """

    def __init__(self, data: JoinedSplits, canvases: Sequence[Canvas], seed: int) -> None:
        self.data, self.canvases, self.seed = data, tuple(canvases), seed
        sizes = data.pair_sizes()
        self._bucket_of = assign_canvases(sizes.reshape(-1, 2), canvases).reshape(-1, 2)
        if (self._bucket_of < 0).any():
            raise SettingError(
                f"an example fits none of the canvases {', '.join(map(str, canvases))}: add a larger one"
            )
        visited = sum_visits(data, self._bucket_of, len(canvases))
        self.fractions: NDArray[np.float64] = visited / visited.sum()
        self._per_epoch = visited
        self._lock = threading.Lock()
        self._latest: tuple[tuple[int, int], Visits, VisitedPairs] | None = None

    def stream(
        self, bucket: int, micro_batch_size: int, start: Position, rank: int = 0, world_size: int = 1, depth: int = 2
    ) -> Generator[tuple[Batch, Position], None, None]:
        """Yields this rank's slices of the micro-batches of a bucket from `start` on, each with the position after it.

        Args:
            micro_batch_size: examples over all ranks.
            depth: a thread makes up to this many micro-batches ahead.
        """
        assert self.fractions[bucket] > 0, self.canvases[bucket]
        return prefetch(self._micro_batches(bucket, micro_batch_size, start, rank, world_size), depth)

    def _micro_batches(
        self, bucket: int, micro_batch_size: int, start: Position, rank: int, world_size: int
    ) -> Iterator[tuple[Batch, Position]]:
        rows_of_rank = micro_batch_size // world_size
        segment, number = start
        while True:
            taken = self._segment(bucket, micro_batch_size, segment)
            in_segment = len(taken.examples) // micro_batch_size
            while number < in_segment:
                first = number * micro_batch_size + rank * rows_of_rank
                rows = slice(first, first + rows_of_rank)
                batch = self.data.read_batch(
                    taken.examples[rows], taken.puzzles[rows], taken.visit_seeds[rows], self.canvases[bucket]
                )
                number += 1
                after = Position(segment, number) if number < in_segment else Position(segment + 1, 0)
                yield batch, after
            segment, number = segment + 1, 0

    def _segment(self, bucket: int, micro_batch_size: int, segment: int) -> PlanRows:
        """Returns all rows of the bucket in a segment; they depend on the seed alone."""
        epochs = max(LEAST_EPOCHS, int(np.ceil(LEAST_MICRO_BATCHES * micro_batch_size / self._per_epoch[bucket]))) | 1
        data = self.data
        seed = np.uint64(interval_seed(self.seed, segment))
        taken = [
            take_bucket(visits, seed, data.layout, pairs, self._bucket_of, bucket)
            for visits, pairs in self._visits(segment, epochs)
        ]
        return taken[0] if len(taken) == 1 else PlanRows(*map(np.concatenate, zip(*taken, strict=True)))

    def _visits(self, segment: int, epochs: int) -> Iterator[tuple[Visits, VisitedPairs]]:
        """Yields the visits of a segment.  Streams begin with the same one, so a short one is kept until the next."""
        data = self.data
        drawn = IntervalVisits(data.layout, epochs, self.seed, segment, data.group_weights)
        if drawn.num_chunks > 1:
            yield from ((visits, data.pairs_of(visits.puzzles)) for visits in drawn.chunks())
            return
        with self._lock:
            if self._latest is None or self._latest[0] != (segment, epochs):
                visits = drawn.visits(0, drawn.count)
                self._latest = ((segment, epochs), visits, data.pairs_of(visits.puzzles))
            _, visits, pairs = self._latest
        yield visits, pairs


PUZZLES_AT_ONCE = 1 << 20


def measure_demand(data: JoinedSplits) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Returns the sides of square canvases that some example needs, and how often an epoch visits such examples.

    Returns:
        int16 [sides, 2], the height and width of each canvas; float64 [sides].

    Raises:
        SettingError: if the data set's format has the whole canvas alone.
    """
    sides = data.pair_sizes().max(axis=2).astype(np.int64)
    visits = sum_visits(data, sides, int(sides.max(initial=0)) + 1)
    needed = np.flatnonzero(visits)
    return np.stack((needed, needed), axis=1).astype(np.int16), visits[needed]


def sum_visits(data: JoinedSplits, class_of: NDArray[np.integer], num_classes: int) -> NDArray[np.float64]:
    """Returns how often an epoch visits the examples of each class on average: float64 [classes].

    The visits of all examples are added up in their order, puzzles in blocks, so that nothing is as large as the data.

    Args:
        class_of: int [pairs, 2], the class of each pair as it is, and turned.
    """
    layout, sums = data.layout, np.zeros(num_classes)
    puzzles = np.diff(layout.group_starts)
    weights = (np.ones(len(puzzles)) if data.group_weights is None else data.group_weights) / puzzles
    for first in range(0, layout.num_puzzles, PUZZLES_AT_ONCE):
        block = np.arange(first, min(first + PUZZLES_AT_ONCE, layout.num_puzzles))
        _add_visits(layout, weights, first, *data.pairs_of(block), class_of, sums)
    return sums


@njit(cache=True, nogil=True)
def _add_visits(layout, weights, first, first_pairs, is_turned, class_of, sums):  # type: ignore[no-untyped-def]
    """Adds the visits of the puzzles from `first` on to the sums of their classes, one example after the other."""
    group = np.searchsorted(layout.group_starts, first, side="right") - 1
    for n in range(len(first_pairs)):
        while first + n >= layout.group_starts[group + 1]:
            group += 1
        side = 1 if is_turned[n] else 0
        count = count_examples(layout, group, first + n)
        taken = count_taken(layout, group, first + n)
        visits = weights[group] if taken == count else weights[group] * taken / count
        for pair in range(first_pairs[n], first_pairs[n] + count):
            sums[class_of[pair, side]] += visits
