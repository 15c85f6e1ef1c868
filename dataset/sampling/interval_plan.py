"""The sampler plan of an interval: what is visited, and in which batches.

A plan is a list of visits, each of one puzzle, and the first visit of every batch.  Nothing else is stored: the order
of a visit's examples, and their offsets on the canvas, follow from the visit's own seed.

    stream:  | visit | visit | visit | visit | visit | ...     one visit = the examples of one puzzle
    batches: |------- global_batch_size -------|------- ...    a puzzle that does not fit is cut, its rest is dropped

Sampling is as in "Less is More: Recursive Reasoning with Tiny Networks" (arXiv 2510.04871) and its published code, but
every draw has a seed, and steps are counted, not estimated.

A group of weight w is visited n * w times, rounded up or down, in any n consecutive epochs.  With w = 2 that is twice
an epoch, with w = 0.5 every other epoch, with w = 2.5 two times and three times alternately.  Each group begins at a
phase that is drawn, so that all epochs visit about the same number of groups.

A visit takes all examples of its puzzle, or, where the puzzle has a visit size, so many of them, drawn by its seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dataset.hashing import splitmix64

_WEIGHT_STREAM = 0x2545F4914F6CDD1D  # keeps the phases of weighted groups independent of what an interval draws
_ORDER_STREAM = np.uint64(0xD1B54A32D192ED03)  # keeps the order of examples independent of their offsets
_MASK_64 = (1 << 64) - 1

TAKE_ALL = np.empty(0, dtype=np.int64)
"""The visit sizes where each visit takes all examples of its puzzle."""


@dataclass(frozen=True)
class IntervalPlan:
    """What an interval visits, in 4 bytes per visit and 8 per step.

    puzzles: int32 [visits], the puzzle of each visit.
    first_visits: int64 [steps], the visit with which each batch begins.
    seed: uint64; the seeds of the visits are derived from it.
    """

    puzzles: NDArray[np.int32]
    first_visits: NDArray[np.int64]
    seed: np.uint64

    @property
    def num_steps(self) -> int:
        return len(self.first_visits)


class PlanRows(NamedTuple):
    """Rows of a plan: int64 [rows] example, int64 [rows] puzzle, uint64 [rows] seed of the visit of each row."""

    examples: NDArray[np.int64]
    puzzles: NDArray[np.int64]
    visit_seeds: NDArray[np.uint64]


def plan_interval(
    group_starts: NDArray[np.int64],
    example_starts: NDArray[np.int64],
    global_batch_size: int,
    epochs: int,
    seed: int,
    interval: int,
    group_weights: NDArray[np.float64] | None = None,
    visit_sizes: NDArray[np.int64] = TAKE_ALL,
) -> IntervalPlan:
    """Draws the visits of an interval and packs them into batches.

    Args:
        group_starts: int64 [G + 1], the first puzzle of each group and the end.
        example_starts: int64 [P + 1], the first example of each puzzle and the end.
        group_weights: float64 [G], visits of each group per epoch; None means one each.
        visit_sizes: int64 [P], how many of a puzzle's examples a visit takes, at most; empty for all.
    """
    rng = np.random.default_rng((seed, interval))
    if group_weights is None:
        puzzles = np.empty(epochs * (len(group_starts) - 1), dtype=np.int32)
        _draw_visits(rng, group_starts, puzzles)
    else:
        phases = np.random.default_rng((seed, _WEIGHT_STREAM)).random(len(group_weights))
        first = interval * epochs
        ends = np.floor((first + epochs) * group_weights + phases) - np.floor(first * group_weights + phases)
        puzzles = np.empty(int(ends.sum()), dtype=np.int32)
        _draw_weighted_visits(rng, group_starts, group_weights, phases, first, puzzles)
    first_visits = _pack(puzzles, example_starts, visit_sizes, global_batch_size)
    return IntervalPlan(puzzles, first_visits, np.uint64(interval_seed(seed, interval)))


def interval_seed(seed: int, interval: int) -> int:
    """Returns the 64-bit seed from which the seeds of an interval's visits are derived."""
    return int(_combine(np.uint64(seed & _MASK_64), np.uint64(interval)))


def take_rows(
    plan: IntervalPlan,
    step: int,
    example_starts: NDArray[np.int64],
    first_row: int,
    end_row: int,
    visit_sizes: NDArray[np.int64] = TAKE_ALL,
) -> PlanRows:
    """Returns the rows first_row..end_row of one global batch."""
    first_visit = int(plan.first_visits[step])
    return PlanRows(*_fill_rows(plan.puzzles, first_visit, plan.seed, example_starts, visit_sizes, first_row, end_row))


def take_bucket(
    plan: IntervalPlan,
    example_starts: NDArray[np.int64],
    bucket_of: NDArray[np.int8],
    bucket: int,
    visit_sizes: NDArray[np.int64] = TAKE_ALL,
) -> PlanRows:
    """Returns the rows of all visits, in order and not cut into batches, whose examples are in one bucket.

    Args:
        bucket_of: int8 [examples], the bucket of each example.
    """
    return PlanRows(*_fill_bucket(plan.puzzles, plan.seed, example_starts, visit_sizes, bucket_of, bucket))


@njit(cache=True, nogil=True)
def _combine(a: np.uint64, b: np.uint64) -> np.uint64:
    return splitmix64(splitmix64(a) ^ b)


@njit(cache=True, nogil=True)
def _draw_visits(rng: np.random.Generator, group_starts: NDArray[np.int64], puzzles: NDArray[np.int32]) -> None:
    """Fills `puzzles`: in every epoch one puzzle of every group, the groups in random order."""
    G = len(group_starts) - 1
    order = np.arange(G)
    visit = 0
    while visit < len(puzzles):
        rng.shuffle(order)
        for group in order:
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
    puzzles: NDArray[np.int32],
) -> None:
    """Fills `puzzles` like `_draw_visits`, but with each group as often as its weight says."""
    visit, epoch = 0, first_epoch
    while visit < len(puzzles):
        order = np.repeat(np.arange(len(weights)), visits_in_epoch(weights, phases, epoch))
        rng.shuffle(order)
        for group in order:
            puzzles[visit] = rng.integers(group_starts[group], group_starts[group + 1])
            visit += 1
        epoch += 1


@njit(cache=True, nogil=True)
def taken_of(example_starts: NDArray[np.int64], visit_sizes: NDArray[np.int64], puzzle: int) -> int:
    """Returns how many examples a visit of a puzzle takes."""
    count = example_starts[puzzle + 1] - example_starts[puzzle]
    return min(count, visit_sizes[puzzle]) if len(visit_sizes) else count


@njit(cache=True, nogil=True)
def _pack(
    puzzles: NDArray[np.int32],
    example_starts: NDArray[np.int64],
    visit_sizes: NDArray[np.int64],
    global_batch_size: int,
) -> NDArray[np.int64]:
    """Returns the first visit of every full batch: int64 [steps]."""
    total = 0
    for puzzle in puzzles:
        total += taken_of(example_starts, visit_sizes, puzzle)
    first_visits = np.empty(total // global_batch_size, dtype=np.int64)  # as many as there would be without cuts
    steps, first, filled = 0, 0, 0
    for visit in range(len(puzzles)):
        filled += taken_of(example_starts, visit_sizes, puzzles[visit])
        if filled >= global_batch_size:
            first_visits[steps] = first
            steps, first, filled = steps + 1, visit + 1, 0
    return first_visits[:steps].copy()


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
def _fill_bucket(
    puzzles: NDArray[np.int32],
    seed: np.uint64,
    example_starts: NDArray[np.int64],
    visit_sizes: NDArray[np.int64],
    bucket_of: NDArray[np.int8],
    bucket: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """`take_bucket`, compiled."""
    total = 0  # as if each visit took all
    for puzzle in puzzles:
        for example in range(example_starts[puzzle], example_starts[puzzle + 1]):
            total += bucket_of[example] == bucket
    examples = np.empty(total, dtype=np.int64)
    owners = np.empty(total, dtype=np.int64)
    seeds = np.empty(total, dtype=np.uint64)
    out = 0
    for visit in range(len(puzzles)):
        puzzle = puzzles[visit]
        start = example_starts[puzzle]
        count = example_starts[puzzle + 1] - start
        visit_seed = _combine(seed, np.uint64(visit))
        taken = taken_of(example_starts, visit_sizes, puzzle)
        for position in _order(visit_seed, count, taken)[:taken]:
            if bucket_of[start + position] == bucket:
                examples[out] = start + position
                owners[out] = puzzle
                seeds[out] = visit_seed
                out += 1
    return examples[:out], owners[:out], seeds[:out]


@njit(cache=True, nogil=True)
def _fill_rows(
    puzzles: NDArray[np.int32],
    first_visit: int,
    seed: np.uint64,
    example_starts: NDArray[np.int64],
    visit_sizes: NDArray[np.int64],
    first_row: int,
    end_row: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """`take_rows` of the batch that begins with `first_visit`, compiled."""
    rows = end_row - first_row
    examples = np.empty(rows, dtype=np.int64)
    owners = np.empty(rows, dtype=np.int64)
    seeds = np.empty(rows, dtype=np.uint64)
    visit, row = first_visit, 0
    while row < end_row:
        puzzle = puzzles[visit]
        start = example_starts[puzzle]
        count = example_starts[puzzle + 1] - start
        taken = taken_of(example_starts, visit_sizes, puzzle)
        if row + taken > first_row:
            visit_seed = _combine(seed, np.uint64(visit))
            used = min(taken, end_row - row)
            order = _order(visit_seed, count, used)
            for i in range(used):
                if row + i >= first_row:
                    out = row + i - first_row
                    examples[out] = start + order[i]
                    owners[out] = puzzle
                    seeds[out] = visit_seed
        row += taken
        visit += 1
    return examples, owners, seeds
