"""Draws the visits of an interval: which puzzle each of them is of.

The visits of a long interval need not fit into memory.  They are drawn in chunks of whole epochs.  The state of the
generator is kept where a chunk begins, so that any chunk can be drawn again, the same as the first time.

A group of weight w is visited n * w times, rounded up or down, in any n consecutive epochs.  With w = 2 that is twice
an epoch, with w = 0.5 every other epoch, with w = 2.5 two times and three times alternately.  Each group begins at a
phase that is drawn, so that all epochs visit about the same number of groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dataset.storage import PuzzleLayout

CHUNK_VISITS = 1 << 22
"""A chunk has about this many visits, and at least one epoch: 34 MB."""

_WEIGHT_STREAM = 0x2545F4914F6CDD1D  # keeps the phases of weighted groups independent of what an interval draws


class Visits(NamedTuple):
    """Consecutive visits: the number of the first one in its interval, and int32 [N] the group and puzzle of each."""

    first: int
    groups: NDArray[np.int32]
    puzzles: NDArray[np.int32]

    def cut(self, first: int, end: int) -> Visits:
        """Returns those of the visits first..end, by their numbers in the interval, that are among these."""
        rows = slice(max(0, first - self.first), max(0, end - self.first))
        return Visits(max(first, self.first), self.groups[rows], self.puzzles[rows])


class _ChunkStart(NamedTuple):
    """Where a chunk begins: its first visit, its first epoch, the generator's state, and the order of the groups, int32
    [G], which each epoch shuffles further; None with weights, where each epoch begins with its own order."""

    visit: int
    epoch: int
    state: Mapping[str, Any]
    order: NDArray[np.int32] | None


class IntervalVisits:
    """The visits of one interval, which follow from (seed, interval) and the groups.

    Args:
        epochs: of the interval.
        weights: float64 [G], visits of each group per epoch; None means one each.
        chunk_visits: a chunk has about so many.  The visits do not depend on it.

    Attributes:
        count: the number of visits.
    """

    def __init__(
        self,
        layout: PuzzleLayout,
        epochs: int,
        seed: int,
        interval: int,
        weights: NDArray[np.float64] | None = None,
        chunk_visits: int = CHUNK_VISITS,
    ) -> None:
        self._layout, self._epochs, self._weights = layout, epochs, weights
        self._first_epoch = interval * epochs
        self._rng = np.random.default_rng((seed, interval))
        G = layout.num_groups
        order = None
        if weights is None:
            order, per_epoch = np.arange(G, dtype=np.int32), float(G)
        else:
            self._phases = np.random.default_rng((seed, _WEIGHT_STREAM)).random(G)
            per_epoch = float(weights.sum())
        self._epochs_per_chunk = max(1, int(chunk_visits / max(1.0, per_epoch)))
        self.count = self._visits_before(epochs)
        self._starts = [_ChunkStart(0, 0, self._rng.bit_generator.state, order)]
        self._latest: list[tuple[int, Visits]] = []

    @property
    def num_chunks(self) -> int:
        return -(-self._epochs // self._epochs_per_chunk)

    def chunks(self) -> Iterator[Visits]:
        """Yields all visits, chunk by chunk."""
        for number in range(self.num_chunks):
            yield self._draw(number)

    def visits(self, first: int, end: int) -> Visits:
        """Returns the visits first..end, which are drawn again if they are not among the latest ones."""
        assert 0 <= first <= end <= self.count, (first, end, self.count)
        parts = []
        number = self._chunk_of(first)
        while number < self.num_chunks:
            chunk = self._chunk(number)
            parts.append(chunk.cut(first, end))
            if end <= chunk.first + len(chunk.puzzles):
                break
            number += 1
        if len(parts) == 1:
            return parts[0]
        empty = np.empty(0, dtype=np.int32)
        columns = ([empty, *(getattr(part, name) for part in parts)] for name in ("groups", "puzzles"))
        return Visits(first, *map(np.concatenate, columns))

    def _chunk_of(self, visit: int) -> int:
        """Returns the chunk that has a visit.  Chunks before it are drawn if it is not known where they end."""
        while self._starts[-1].visit <= visit and len(self._starts) < self.num_chunks:
            self._draw(len(self._starts) - 1)
        return int(np.searchsorted([start.visit for start in self._starts], visit, side="right")) - 1

    def _chunk(self, number: int) -> Visits:
        """Returns a chunk; the latest two are kept, since a batch may lie in both."""
        found = next((chunk for n, chunk in self._latest if n == number), None)
        if found is None:
            found = self._draw(number)
            self._latest = [*self._latest[-1:], (number, found)]
        return found

    def _draw(self, number: int) -> Visits:
        """Draws a chunk from where it begins, and notes where the next one does."""
        start = self._starts[number]
        self._rng.bit_generator.state = start.state
        epochs = min(self._epochs_per_chunk, self._epochs - start.epoch)
        end = self._visits_before(start.epoch + epochs)
        groups, puzzles = (np.empty(end - start.visit, dtype=np.int32) for _ in range(2))
        order = None
        if self._weights is None:
            assert start.order is not None
            order = start.order.copy()
            _draw_visits(self._rng, self._layout.group_starts, order, groups, puzzles)
        else:
            first = self._first_epoch + start.epoch
            starts = self._layout.group_starts
            _draw_weighted_visits(self._rng, starts, self._weights, self._phases, first, groups, puzzles)
        if number + 1 == len(self._starts) and number + 1 < self.num_chunks:
            self._starts.append(_ChunkStart(end, start.epoch + epochs, self._rng.bit_generator.state, order))
        return Visits(start.visit, groups, puzzles)

    def _visits_before(self, epoch: int) -> int:
        """Returns the number of visits of the interval before one of its epochs."""
        if self._weights is None:
            return epoch * self._layout.num_groups
        first, weights, phases = self._first_epoch, self._weights, self._phases
        return int((np.floor((first + epoch) * weights + phases) - np.floor(first * weights + phases)).sum())


@njit(cache=True, nogil=True)
def _draw_visits(
    rng: np.random.Generator,
    group_starts: NDArray[np.int64],
    order: NDArray[np.int32],
    groups: NDArray[np.int32],
    puzzles: NDArray[np.int32],
) -> None:
    """Fills `groups` and `puzzles`: in every epoch one puzzle of every group, the groups in random order."""
    visit = 0
    while visit < len(puzzles):
        rng.shuffle(order)
        for group in order:
            groups[visit] = group
            puzzles[visit] = rng.integers(group_starts[group], group_starts[group + 1])
            visit += 1


@njit(cache=True, nogil=True)
def visits_in_epoch(weights: NDArray[np.float64], phases: NDArray[np.float64], epoch: int) -> NDArray[np.int64]:
    """Returns how often each group is visited in an epoch, int64 [G]; phases: float64 [G] in [0, 1)."""
    return (np.floor((epoch + 1) * weights + phases) - np.floor(epoch * weights + phases)).astype(np.int64)


@njit(cache=True, nogil=True)
def _draw_weighted_visits(
    rng: np.random.Generator,
    group_starts: NDArray[np.int64],
    weights: NDArray[np.float64],
    phases: NDArray[np.float64],
    first_epoch: int,
    groups: NDArray[np.int32],
    puzzles: NDArray[np.int32],
) -> None:
    """Fills its arrays like `_draw_visits`, but with each group as often as its weight says."""
    visit, epoch = 0, first_epoch
    while visit < len(puzzles):
        order = np.repeat(np.arange(len(weights)), visits_in_epoch(weights, phases, epoch))
        rng.shuffle(order)
        for group in order:
            groups[visit] = group
            puzzles[visit] = rng.integers(group_starts[group], group_starts[group + 1])
            visit += 1
        epoch += 1
