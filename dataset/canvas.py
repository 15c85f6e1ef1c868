"""Canvases: which part of the whole canvas a pair of grids needs, and which sizes are worth having.

A canvas is the top-left part of the whole one (30 x 30 for ARC).  A pair needs a row and a column more than its larger
grid for the EOS frame, where the whole canvas has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_CANVASES = 6
"""`fitted` chooses at most so many: more save little, and each is compiled by itself."""

Cover = tuple[float, tuple[int, ...]]
"""A cost, and the sizes of the canvases that have it."""

WORTH = 0.03
"""A further canvas has to save this share of the cost."""


class Canvas(NamedTuple):
    """A size in cells."""

    height: int
    width: int

    @property
    def cells(self) -> int:
        return self.height * self.width

    def holds(self, other: Canvas) -> bool:
        return self.height >= other.height and self.width >= other.width

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


def whole_canvas(seq_len: int) -> Canvas:
    """The canvas of a data set: square, or one row where its cells make no square."""
    side = math.isqrt(seq_len)
    return Canvas(side, side) if side * side == seq_len else Canvas(1, seq_len)


def checked(sizes: Sequence[Sequence[int]], whole: Canvas) -> tuple[Canvas, ...]:
    """The canvases, small ones first.

    Raises:
        ValueError: if one is listed twice or larger than the whole one, or if the whole one is missing: what fits no
            other could not be placed.
    """
    canvases = sorted((Canvas(*size) for size in sizes), key=lambda c: (c.cells, c))
    for canvas in canvases:
        if canvas.height < 1 or canvas.width < 1 or not whole.holds(canvas):
            raise ValueError(f"canvases: {canvas} is not within the data set's {whole}: leave it out")
        if canvases.count(canvas) > 1:
            raise ValueError(f"canvases: {canvas} is listed twice: leave one out")
    if whole not in canvases:
        raise ValueError(
            f"canvases: the data set's whole canvas {whole} is missing: add [{whole.height},{whole.width}]"
        )
    return tuple(canvases)


def place_all(extents: NDArray[np.integer], canvases: Sequence[Canvas]) -> NDArray[np.int8]:
    """The first canvas that holds each of `extents` [N, 2] (height and width), int8 [N]."""
    found = np.full(len(extents), -1, dtype=np.int8)
    for i, canvas in reversed(list(enumerate(canvases))):
        found[(extents[:, 0] <= canvas.height) & (extents[:, 1] <= canvas.width)] = i
    return found


def next_larger(canvases: Sequence[Canvas]) -> list[int | None]:
    """For each canvas, small ones first, the index of the next that holds it; None for the whole one."""
    return [
        next((j for j in range(i + 1, len(canvases)) if canvases[j].holds(canvas)), None)
        for i, canvas in enumerate(canvases)
    ]


def fitted(
    extents: NDArray[np.integer],
    weights: NDArray[np.floating],
    whole: Canvas,
    cost: Callable[[int], float],
    most: int = MOST_CANVASES,
) -> tuple[Canvas, ...]:
    """The square canvases that make an example cheapest on average, as few as that takes.

    Args:
        extents: int [N, 2], height and width that examples need.  weights: [N], how often each is visited.
        cost: of an example, as a function of its canvas's cells.
        most: canvases at most.
    """
    side = min(whole)
    needed = np.minimum(np.maximum(extents[:, 0], extents[:, 1]), side)
    share = np.bincount(needed, weights, minlength=side + 1)
    sizes = [s for s in range(1, side + 1) if share[s] > 0 or s == side]
    # best[k][j]: the cheapest way to cover the first j sizes with k canvases, the last of which is sizes[j - 1].
    infinite: Cover = (math.inf, ())
    best: list[list[Cover]] = [[(0.0, ()), *[infinite] * len(sizes)]]
    for _ in range(most):
        row = [infinite]
        for j in range(1, len(sizes) + 1):
            price = cost(whole.cells if sizes[j - 1] == side else sizes[j - 1] ** 2)
            row.append(
                min(
                    (best[-1][i][0] + price * float(share[sizes[i:j]].sum()), (*best[-1][i][1], sizes[j - 1]))
                    for i in range(j)
                )
            )
        best.append(row)
    chosen = best[1][-1]
    for row in best[2:]:
        if row[-1][0] < (1 - WORTH) * chosen[0]:
            chosen = row[-1]
    return tuple(whole if size == side else Canvas(size, size) for size in chosen[1])
