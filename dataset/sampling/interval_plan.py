"""The sampler plan of an interval: what is visited, and in which batches.

A plan is a list of visits, each of one puzzle, and the first visit of every batch.  The visits are drawn when they are
needed (`dataset.sampling.visits`).  The order of a visit's examples, and their offsets on the canvas, follow from the
visit's own seed.

    stream:  | visit | visit | visit | visit | visit | ...     one visit = the examples of one puzzle
    batches: |------- global_batch_size -------|------- ...    a puzzle that does not fit is cut, its rest is dropped

Sampling is as in "Less is More: Recursive Reasoning with Tiny Networks" (arXiv 2510.04871) and its published code, but
every draw has a seed, and steps are counted, not estimated.

A visit takes all examples of its puzzle, or, where the group has a visit size, so many of them, drawn by its seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dataset.hashing import splitmix64
from dataset.sampling.visits import CHUNK_VISITS, IntervalVisits, Visits
from dataset.storage import PuzzleLayout, count_examples, count_taken, first_example

_ORDER_STREAM = np.uint64(0xD1B54A32D192ED03)  # keeps the order of examples independent of their offsets
_MASK_64 = (1 << 64) - 1


@dataclass(frozen=True)
class IntervalPlan:
    """What an interval visits, in 8 bytes per step; the visits are drawn again when they are read.

    first_visits: int64 [steps], the visit with which each batch begins.
    seed: uint64; the seeds of the visits are derived from it.
    """

    layout: PuzzleLayout
    drawn: IntervalVisits
    first_visits: NDArray[np.int64]
    seed: np.uint64

    @property
    def num_steps(self) -> int:
        return len(self.first_visits)

    def visits_of(self, step: int) -> Visits:
        """Returns the visits of a batch; of the last batch all to the end of the interval."""
        end = self.first_visits[step + 1] if step + 1 < self.num_steps else self.drawn.count
        return self.drawn.visits(int(self.first_visits[step]), int(end))


class PlanRows(NamedTuple):
    """Rows of a plan: int64 [rows] example, int64 [rows] puzzle, uint64 [rows] seed of the visit of each row."""

    examples: NDArray[np.int64]
    puzzles: NDArray[np.int64]
    visit_seeds: NDArray[np.uint64]


def plan_interval(
    layout: PuzzleLayout,
    global_batch_size: int,
    epochs: int,
    seed: int,
    interval: int,
    group_weights: NDArray[np.float64] | None = None,
    chunk_visits: int = CHUNK_VISITS,
) -> IntervalPlan:
    """Draws the visits of an interval and packs them into batches.

    Args:
        group_weights: float64 [G], visits of each group per epoch; None means one each.
        chunk_visits: as of `IntervalVisits`.
    """
    drawn = IntervalVisits(layout, epochs, seed, interval, group_weights, chunk_visits)
    packed = [np.empty(0, dtype=np.int64)]
    first, filled = 0, 0  # of the batch that is being filled
    for chunk in drawn.chunks():
        found, first, filled = _pack(chunk, layout, global_batch_size, first, filled)
        packed.append(found)
    return IntervalPlan(layout, drawn, np.concatenate(packed), np.uint64(interval_seed(seed, interval)))


def interval_seed(seed: int, interval: int) -> int:
    """Returns the 64-bit seed from which the seeds of an interval's visits are derived."""
    return int(_combine(np.uint64(seed & _MASK_64), np.uint64(interval)))


def take_rows(plan: IntervalPlan, step: int, first_row: int, end_row: int) -> PlanRows:
    """Returns the rows first_row..end_row of one global batch."""
    return PlanRows(*_fill_rows(plan.visits_of(step), plan.seed, plan.layout, first_row, end_row))


def take_bucket(
    visits: Visits,
    seed: np.uint64,
    layout: PuzzleLayout,
    pairs: tuple[NDArray[np.int64], NDArray[np.bool_]],
    bucket_of: NDArray[np.int8],
    bucket: int,
) -> PlanRows:
    """Returns the rows of some visits, in order and not cut into batches, whose examples are in one bucket.

    Args:
        seed: of the interval.
        pairs: as of `JoinedSplits.pairs_of`, of the visited puzzles.
        bucket_of: int8 [pairs, 2], the bucket of each pair as it is, and turned.
    """
    return PlanRows(*_fill_bucket(visits, seed, layout, *pairs, bucket_of, bucket))


@njit(cache=True, nogil=True)
def _combine(a: np.uint64, b: np.uint64) -> np.uint64:
    return splitmix64(splitmix64(a) ^ b)


@njit(cache=True, nogil=True)
def _pack(visits, layout, global_batch_size, first, filled):  # type: ignore[no-untyped-def]
    """Returns the first visit of every batch that becomes full: int64 [steps].

    Args:
        first, filled: the first visit of the batch that earlier visits have begun, and how many examples they have.

    Returns:
        also the first visit of the batch that is begun, and how many examples it has.
    """
    first_visits = np.empty(len(visits.puzzles), dtype=np.int64)
    steps = 0
    for n in range(len(visits.puzzles)):
        filled += count_taken(layout, visits.groups[n], visits.puzzles[n])
        if filled >= global_batch_size:
            first_visits[steps] = first
            steps, first, filled = steps + 1, visits.first + n + 1, 0
    return first_visits[:steps].copy(), first, filled


@njit(cache=True, nogil=True)
def _order(visit_seed: np.uint64, count: int, used: int) -> NDArray[np.int64]:
    """Returns the order of a visit's `count` examples; only the first `used` of them are shuffled (Fisher-Yates)."""
    order = np.arange(count)
    draw = visit_seed ^ _ORDER_STREAM
    for i in range(used):
        draw = splitmix64(draw)
        j = i + np.int64(draw % np.uint64(count - i))
        order[i], order[j] = order[j], order[i]
    return order


@njit(cache=True, nogil=True)
def _fill_bucket(visits, seed, layout, first_pairs, is_turned, bucket_of, bucket):  # type: ignore[no-untyped-def]
    """`take_bucket`, compiled."""
    total, wanted = 0, np.zeros(len(visits.puzzles), dtype=np.bool_)  # as if each visit took all
    for n in range(len(visits.puzzles)):
        side = 1 if is_turned[n] else 0
        first = first_pairs[n]
        for pair in range(first, first + count_examples(layout, visits.groups[n], visits.puzzles[n])):
            total += bucket_of[pair, side] == bucket
            wanted[n] |= bucket_of[pair, side] == bucket
    examples = np.empty(total, dtype=np.int64)
    owners = np.empty(total, dtype=np.int64)
    seeds = np.empty(total, dtype=np.uint64)
    out = 0
    for n in np.flatnonzero(wanted):
        group, puzzle = visits.groups[n], visits.puzzles[n]
        side = 1 if is_turned[n] else 0
        start = first_example(layout, group, puzzle)
        count = count_examples(layout, group, puzzle)
        visit_seed = _combine(seed, np.uint64(visits.first + n))
        taken = count_taken(layout, group, puzzle)
        for position in _order(visit_seed, count, taken)[:taken]:
            if bucket_of[first_pairs[n] + position, side] == bucket:
                examples[out] = start + position
                owners[out] = puzzle
                seeds[out] = visit_seed
                out += 1
    return examples[:out].copy(), owners[:out].copy(), seeds[:out].copy()


@njit(cache=True, nogil=True)
def _fill_rows(visits, seed, layout, first_row, end_row):  # type: ignore[no-untyped-def]
    """`take_rows` of the batch that begins with the first of the visits, compiled."""
    rows = end_row - first_row
    examples = np.empty(rows, dtype=np.int64)
    owners = np.empty(rows, dtype=np.int64)
    seeds = np.empty(rows, dtype=np.uint64)
    n, row = 0, 0
    while row < end_row:
        group, puzzle = visits.groups[n], visits.puzzles[n]
        start = first_example(layout, group, puzzle)
        count = count_examples(layout, group, puzzle)
        taken = count_taken(layout, group, puzzle)
        if row + taken > first_row:
            visit_seed = _combine(seed, np.uint64(visits.first + n))
            used = min(taken, end_row - row)
            order = _order(visit_seed, count, used)
            for i in range(used):
                if row + i >= first_row:
                    out = row + i - first_row
                    examples[out] = start + order[i]
                    owners[out] = puzzle
                    seeds[out] = visit_seed
        row += taken
        n += 1
    return examples, owners, seeds
