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

from utils.errors import SettingError

MOST_CANVASES = 6
"""`fit_canvases` chooses at most this many: more save little, and each is compiled by itself."""

LEAST_SAVING = 0.03
"""A further canvas must save this fraction of the cost."""

Cover = tuple[float, tuple[int, ...]]
"""A cost, and the sides of the canvases that have it."""


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
    """Returns the canvas of a data set: a square, or one row if its cells do not make a square."""
    side = math.isqrt(seq_len)
    return Canvas(side, side) if side * side == seq_len else Canvas(1, seq_len)


def validate_canvases(sizes: Sequence[Sequence[int]], whole: Canvas) -> tuple[Canvas, ...]:
    """Returns the canvases of the setting `canvases`, the smallest first.

    Raises:
        SettingError: if one is listed twice or is larger than the whole one, or if the whole one is missing: some
            examples fit no other.
    """
    canvases = sorted((Canvas(*size) for size in sizes), key=lambda c: (c.cells, c))
    for canvas in canvases:
        if canvas.height < 1 or canvas.width < 1 or not whole.holds(canvas):
            raise SettingError(f"canvases: {canvas} is not within the data set's {whole}: leave it out")
        if canvases.count(canvas) > 1:
            raise SettingError(f"canvases: {canvas} is listed twice: leave one out")
    if whole not in canvases:
        raise SettingError(
            f"canvases: the data set's whole canvas {whole} is missing: add [{whole.height},{whole.width}]"
        )
    return tuple(canvases)


def assign_canvases(sizes: NDArray[np.integer], canvases: Sequence[Canvas]) -> NDArray[np.int8]:
    """Returns the first canvas that holds each of `sizes` [N, 2] (height and width): int8 [N], -1 if none does."""
    assigned = np.full(len(sizes), -1, dtype=np.int8)
    for i, canvas in reversed(list(enumerate(canvases))):
        assigned[(sizes[:, 0] <= canvas.height) & (sizes[:, 1] <= canvas.width)] = i
    return assigned


def next_larger(canvases: Sequence[Canvas]) -> list[int | None]:
    """Returns for each canvas, small ones first, the index of the next one that holds it; None for the whole one."""
    return [
        next((j for j in range(i + 1, len(canvases)) if canvases[j].holds(canvas)), None)
        for i, canvas in enumerate(canvases)
    ]


def fit_canvases(
    sizes: NDArray[np.integer],
    weights: NDArray[np.floating],
    whole: Canvas,
    cost: Callable[[int], float],
    most: int = MOST_CANVASES,
) -> tuple[Canvas, ...]:
    """Chooses the square canvases that make an example cheapest on average; no more of them than are worth it.

    Args:
        sizes: int [N, 2], height and width of the canvas that each example needs.
        weights: float [N], how often each example is visited.
        cost: the cost of an example as a function of its canvas's cells.
        most: largest number of canvases.
    """
    whole_side = min(whole)
    needed = np.minimum(np.maximum(sizes[:, 0], sizes[:, 1]), whole_side)
    visits = np.bincount(needed, weights, minlength=whole_side + 1)  # of the examples that need each side
    sides = [side for side in range(1, whole_side + 1) if visits[side] > 0 or side == whole_side]
    # best[k][j]: the cheapest cover of the first j sides by k canvases, the last of which has the side sides[j - 1].
    infinite: Cover = (math.inf, ())
    best: list[list[Cover]] = [[(0.0, ()), *[infinite] * len(sides)]]
    for _ in range(most):
        row = [infinite]
        for j in range(1, len(sides) + 1):
            price = cost(whole.cells if sides[j - 1] == whole_side else sides[j - 1] ** 2)
            row.append(
                min(
                    (best[-1][i][0] + price * float(visits[sides[i:j]].sum()), (*best[-1][i][1], sides[j - 1]))
                    for i in range(j)
                )
            )
        best.append(row)
    chosen = best[1][-1]
    for row in best[2:]:
        if row[-1][0] < (1 - LEAST_SAVING) * chosen[0]:
            chosen = row[-1]
    return tuple(whole if side == whole_side else Canvas(side, side) for side in chosen[1])
