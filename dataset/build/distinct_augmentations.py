"""Samples the augmentations of each task, so that no two give the same puzzle.

Two augmentations are compared without applying either.  A pair's hash is linear in its cells: the sum over all cells of
R[colour] * W[side, row, column], with random 64-bit numbers R and W.  Grouped by original colour this is the sum over
colours c of R[permutation(c)] * M[c].  M depends on the dihedral transform alone and is computed once per transform.  A
draw then costs ten products per pair instead of a pass over all cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from dataset.augmentation import NUM_COLOURS, NUM_DIHEDRAL, transformed_layout
from dataset.encoding import MAX_GRID
from dataset.hashing import splitmix64, task_seed
from dataset.tasks import Pair, Task

DRAWS_PER_AUGMENTATION = 5
NUM_HASHES = 2  # 128 bits: with 1e9 puzzles the chance of any false match is below 1e-20

_TABLES = np.random.default_rng(0x7A5C)
_CELL = _TABLES.integers(0, 2**64, (2, MAX_GRID, MAX_GRID, NUM_HASHES), dtype=np.uint64)
_SHAPE = _TABLES.integers(0, 2**64, (2, MAX_GRID + 1, MAX_GRID + 1, NUM_HASHES), dtype=np.uint64)
COLOUR_TABLE = _TABLES.integers(0, 2**64, (NUM_COLOURS, NUM_HASHES), dtype=np.uint64) | np.uint64(1)


def colour_moments(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Returns M of each distinct pair under each transform, uint64 [8, pairs, 10, 2], and a hash of the shapes of its
    grids, uint64 [8, pairs, 2]."""
    distinct = {tuple(b"" if g is None else (g.shape, g.tobytes()) for g in pair): pair for pair in pairs}
    moments = np.zeros((NUM_DIHEDRAL, len(distinct), NUM_COLOURS, NUM_HASHES), dtype=np.uint64)
    shapes = np.zeros((NUM_DIHEDRAL, len(distinct), NUM_HASHES), dtype=np.uint64)
    for p, pair in enumerate(distinct.values()):
        for side, grid in enumerate(pair):
            if grid is not None:
                cells = np.ascontiguousarray(grid, dtype=np.uint8).reshape(-1)
                height, width = grid.shape
                _add_grid(cells, height, width, _CELL[side], _SHAPE[side], moments[:, p], shapes[:, p])
    return moments, shapes


@numba.njit(nogil=True, cache=True)
def _add_grid(cells, height, width, cell_table, shape_table, moments, shapes):  # type: ignore[no-untyped-def]
    """Adds a grid under each transform to the moments [8, 10, 2] and the shapes [8, 2] of its pair."""
    for transform in range(NUM_DIHEDRAL):
        h, w, first, down, right = transformed_layout(height, width, transform, width)
        for k in range(NUM_HASHES):
            shapes[transform, k] += shape_table[h, w, k]
        for i in range(h):
            for j in range(w):
                colour = cells[first + i * down + j * right]
                for k in range(NUM_HASHES):
                    moments[transform, colour, k] += cell_table[i, j, k]


@numba.njit(nogil=True, cache=True)
def set_hash(moments, shapes, colour_table, colours):  # type: ignore[no-untyped-def]
    """Returns the hash of the unordered set of pairs under one transform and one permutation: two uint64."""
    first = np.uint64(0)
    second = np.uint64(0)
    for p in range(moments.shape[0]):
        a, b = shapes[p, 0], shapes[p, 1]
        for c in range(10):
            a += colour_table[colours[c], 0] * moments[p, c, 0]
            b += colour_table[colours[c], 1] * moments[p, c, 1]
        first += splitmix64(a ^ (b << np.uint64(1)))
        second += splitmix64(b + np.uint64(0x632BE59BD9B4E019))
    return first, second


@numba.njit(nogil=True, cache=True)
def _draw(moments, shapes, colour_table, seed, max_draws, transforms, colours):  # type: ignore[no-untyped-def]
    """Fills transforms [1 + num_aug] and colours [1 + num_aug, 10]; returns how many puzzles were found."""
    num_aug = len(transforms) - 1
    seen = set()
    permutation = np.arange(10, dtype=np.uint8)
    transforms[0] = 0
    colours[0] = permutation
    seen.add(set_hash(moments[0], shapes[0], colour_table, permutation))
    found = 1
    state = seed
    for _ in range(max_draws):
        if found > num_aug:
            break
        state += np.uint64(1)
        transform = splitmix64(state) >> np.uint64(61)
        for i in range(9, 1, -1):  # Fisher-Yates over the colours 1..9
            state += np.uint64(1)
            j = 1 + np.int64(((splitmix64(state) >> np.uint64(32)) * np.uint64(i)) >> np.uint64(32))
            permutation[i], permutation[j] = permutation[j], permutation[i]
        key = set_hash(moments[transform], shapes[transform], colour_table, permutation)
        if key not in seen:
            seen.add(key)
            transforms[found] = transform
            colours[found] = permutation
            found += 1
    return found


def sample_augmentations(task: Task, num_aug: int, seed: int) -> np.ndarray:
    """Returns distinct augmentations of a task, the identity first: uint8 [n, 11], dihedral transform and ten colours.

    Draws until there are `num_aug` besides the identity, but at most 5 * `num_aug` times.  A draw that gives a puzzle
    that is already there is dropped; puzzles are compared as unordered sets of pairs, test pairs included.
    """
    moments, shapes = colour_moments(task.pairs)
    rows = np.empty((num_aug + 1, 1 + NUM_COLOURS), dtype=np.uint8)
    found = _draw(
        moments,
        shapes,
        COLOUR_TABLE,
        task_seed(seed, task.id),
        DRAWS_PER_AUGMENTATION * num_aug,
        rows[:, 0],
        rows[:, 1:],
    )
    return rows[:found]


def plan_augmentations(
    tasks: list[Task], num_aug: int, seed: int, workers: int, progress: Callable[[int, int], None] | None = None
) -> list[np.ndarray]:
    """Samples the augmentations of every task, on `workers` threads; the result does not depend on their number.

    Args:
        progress: called with (tasks done, tasks in total).

    Returns:
        For each task uint8 [puzzles, 11], as `sample_augmentations` returns it.
    """
    plan = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for rows in pool.map(lambda task: sample_augmentations(task, num_aug, seed), tasks):
            plan.append(rows)
            if progress is not None:
                progress(len(plan), len(tasks))
    return plan
