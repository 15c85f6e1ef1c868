"""`Augmentation`: a dihedral transform and a colour permutation, and how to apply, invert, name and parse it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numba import njit

from utils.errors import DataError

NUM_DIHEDRAL = 8
NUM_COLOURS = 10
DIHEDRAL_INVERSE = np.array([0, 3, 2, 1, 4, 5, 6, 7], dtype=np.uint8)
"""Rotations by 90 and 270 degrees undo each other; every other transform undoes itself."""

IDENTITY_ROW = np.array([0, *range(NUM_COLOURS)], dtype=np.uint8)
"""The identity as data sets store augmentations: dihedral transform, then the colour that each of 0..9 becomes."""

TRANSPOSING = np.array([1, 3, 6, 7], dtype=np.uint8)
"""The transforms that turn a grid's height into its width."""

SEPARATOR = "|||"
_NAME = re.compile(r"(?P<task>.+)\|\|\|t(?P<dihedral>[0-7])\|\|\|(?P<colours>[0-9]{10})", re.DOTALL)


def dihedral(grid: np.ndarray, transform: int) -> np.ndarray:
    """Returns `grid` [h, w] under a transform: 0 identity, 1/2/3 rotate by 90/180/270 degrees counter-clockwise,
    4 flip left-right, 5 flip up-down, 6 transpose, 7 rotate by 90 degrees, then flip left-right."""
    if transform in (1, 2, 3):
        return np.rot90(grid, transform)
    return {
        0: lambda: grid,
        4: lambda: np.fliplr(grid),
        5: lambda: np.flipud(grid),
        6: lambda: grid.T,
        7: lambda: np.fliplr(np.rot90(grid)),
    }[transform]()


@dataclass(frozen=True)
class Augmentation:
    """`dihedral` in 0..7; `colours[c]` is the colour that c becomes.  Colour 0 stays 0."""

    dihedral: int = 0
    colours: tuple[int, ...] = tuple(range(NUM_COLOURS))

    def __post_init__(self) -> None:
        assert 0 <= self.dihedral < NUM_DIHEDRAL, f"dihedral transform {self.dihedral} is not in 0..7"
        assert _keeps_0(self.colours), f"colours {self.colours} are not a permutation of 0..9 that keeps 0"

    @property
    def is_identity(self) -> bool:
        return self == Augmentation()

    def apply(self, grid: np.ndarray) -> np.ndarray:
        """Returns the augmented grid, uint8."""
        return np.ascontiguousarray(dihedral(np.asarray(self.colours, dtype=np.uint8)[grid], self.dihedral))

    def invert(self, grid: np.ndarray) -> np.ndarray:
        """Returns the grid that `apply` turns into `grid`."""
        cells = np.ascontiguousarray(grid, dtype=np.uint8)
        height, width = cells.shape
        original = np.empty(cells.size, dtype=np.uint8)
        colours = np.asarray(self.colours, dtype=np.uint8)
        shape = undo_augmentation(cells.reshape(-1), height, width, width, self.dihedral, colours, 0, original)
        return original.reshape(shape)

    def name(self, task_id: str) -> str:
        """Returns the puzzle's name: the task's id for the identity, else TASK|||t{dihedral}|||{ten digits}."""
        if self.is_identity:
            return task_id
        return f"{task_id}{SEPARATOR}t{self.dihedral}{SEPARATOR}{''.join(map(str, self.colours))}"

    @classmethod
    def parse(cls, name: str) -> tuple[str, Augmentation]:
        """Returns the task's id and the augmentation that a puzzle's name tells.

        Raises:
            DataError: if it contains the separator, but is not a puzzle's name.
        """
        if SEPARATOR not in name:
            return name, cls()
        match = _NAME.fullmatch(name)
        if match is None:
            raise DataError(f"{name!r} is not a puzzle's name: use TASK or TASK|||t(0..7)|||(ten digits)")
        colours = tuple(int(digit) for digit in match["colours"])
        if not _keeps_0(colours):
            raise DataError(
                f"{name!r} is not a puzzle's name: its digits {match['colours']} must be 0, then 1 to 9 in any order"
            )
        return match["task"], cls(int(match["dihedral"]), colours)


def _keeps_0(colours: tuple[int, ...]) -> bool:
    """Returns whether the colours are a permutation of 0..9 that keeps 0."""
    return colours[:1] == (0,) and sorted(colours) == list(range(NUM_COLOURS))


@njit(cache=True, nogil=True)
def transformed_layout(height, width, transform, stride):  # type: ignore[no-untyped-def]  # numba: integers
    """Returns how to read a grid, stored row by row, as its transform.

    Args:
        stride: cells from one stored row to the next; `width` if the grid is stored alone.

    Returns:
        height, width, first, down, right: cell (r, c) of the transformed grid is the stored cell
        first + r * down + c * right.
    """
    last_row = (height - 1) * stride
    if transform == 0:
        return height, width, 0, stride, 1
    if transform == 1:
        return width, height, width - 1, -1, stride
    if transform == 2:
        return height, width, last_row + width - 1, -stride, -1
    if transform == 3:
        return width, height, last_row, 1, -stride
    if transform == 4:
        return height, width, width - 1, stride, -1
    if transform == 5:
        return height, width, last_row, -stride, 1
    if transform == 6:
        return width, height, 0, 1, stride
    return width, height, last_row + width - 1, -1, -stride


@njit(cache=True, nogil=True)
def undo_augmentation(  # type: ignore[no-untyped-def]
    cells, height, width, stride, transform, colours, colour_0, original
):
    """Writes the grid that an augmentation was applied to: the one definition of its inverse.

    Args:
        cells: the augmented grid [height, width], flat, with `stride` cells from one row to the next.
        transform: the augmentation's dihedral transform.  colours: [10], the colour that each colour became.
        colour_0: the number that stands for colour 0 in `cells`; the other colours follow it.
        original: uint8, at least height * width cells, which get the original grid row by row.

    Returns:
        height and width of the original grid.
    """
    before = np.zeros(NUM_COLOURS, dtype=np.uint8)
    for colour in range(NUM_COLOURS):
        before[colours[colour]] = colour
    H, W, first, down, right = transformed_layout(height, width, DIHEDRAL_INVERSE[transform], stride)
    for i in range(H):
        for j in range(W):
            original[i * W + j] = before[cells[first + i * down + j * right] - colour_0]
    return H, W
