"""Divides a step's examples into micro-batches: what is computed at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dataset.canvas import Canvas
from dataset.sampling.bucket_streams import Position
from dataset.sampling.joined import Batch
from models.arch import ArchConfig
from training.metrics.cost_model import example_cost
from utils.errors import SettingError

MICRO_BATCHES_PER_STEP = 8
"""With several canvases and no `micro_batch_size`, a step on the largest canvas alone has at least this many."""


class MicroBatch(NamedTuple):
    """The next examples of some slots that are computed at once; this rank's slice of them.

    bucket: the index of the canvas.  number: which of the bucket's groups of slots.
    batch: one example for each slot.
    after: where the bucket's stream continues; None on one canvas.
    """

    bucket: int
    number: int
    batch: Batch
    after: Position | None = None


def split_batch(batch: Batch, size: int) -> list[MicroBatch]:
    """Cuts a batch of the one canvas into micro-batches of `size` rows (one rank's)."""
    return [
        MicroBatch(0, number, batch.rows(first, first + size))
        for number, first in enumerate(range(0, len(batch), size))
    ]


def micro_batch_sizes(
    canvases: Sequence[Canvas],
    fractions: Sequence[float],
    batch_size: int,
    micro_batch_size: int | None,
    arch: ArchConfig,
) -> list[int]:
    """Returns the examples in a micro-batch of each canvas, counted over all ranks.

    A size is that of the largest canvas times a power of two, so that all micro-batches cost about the same.  Every
    size divides the batch.  So whatever part of a step is already filled, the rest can be filled too.

    Args:
        fractions: of the training examples on each canvas.
        batch_size, micro_batch_size: the settings `global_batch_size` and `micro_batch_size`.

    Raises:
        SettingError: if `micro_batch_size` does not divide the batch.
    """
    if micro_batch_size is not None and batch_size % micro_batch_size:
        raise SettingError(
            f"micro_batch_size={micro_batch_size} does not divide global_batch_size={batch_size}: "
            "choose a divisor of it"
        )
    if len(canvases) == 1:
        return [micro_batch_size or batch_size]
    most = max(1, batch_size // MICRO_BATCHES_PER_STEP)
    unit = micro_batch_size or _largest_power_of_two(batch_size, most)
    costs = [example_cost(arch, canvas.cells) for canvas in canvases]
    largest = max(cost for cost, fraction in zip(costs, fractions, strict=True) if fraction > 0)
    sizes = []
    for cost, fraction in zip(costs, fractions, strict=True):
        size, times = unit, 1
        # A bucket gets no more slots than a step keeps busy.
        while 2 * times * cost <= largest and 2 * size <= fraction * batch_size and batch_size % (2 * size) == 0:
            times, size = 2 * times, 2 * size
        sizes.append(size)
    return sizes


def _largest_power_of_two(number: int, at_most: int) -> int:
    """Returns the largest power of two up to `at_most` that divides `number`.

    The number of ranks is mostly a power of two, and each rank computes its slice of every micro-batch.
    """
    power = number & -number
    while power > at_most:
        power //= 2
    return power


StepBatch = Batch | list[MicroBatch]
"""What one training step computes: a batch of the one canvas, or micro-batches of several."""
