"""Samples the augmentations of each task, so that no two give the same puzzle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from dataset.augmentation import IDENTITY_ROW, NUM_COLOURS
from dataset.build.pair_hashes import COLOUR_TABLE, colour_moments, set_hash
from dataset.hashing import splitmix64, task_seed
from dataset.tasks import Task

DRAWS_PER_AUGMENTATION = 5

TASKS_AT_ONCE = 32
"""A thread takes so many tasks at once."""


@numba.njit(nogil=True, cache=True)
def _draw(moments, shapes, colour_table, seed, max_draws, transforms, colours, known):  # type: ignore[no-untyped-def]
    """Fills transforms [N] and colours [N, 10], of which the first `known` are given; returns how many there are."""
    seen = set()
    permutation = np.arange(10, dtype=np.uint8)
    for n in range(known):
        seen.add(set_hash(moments[transforms[n]], shapes[transforms[n]], colour_table, colours[n]))
    found = known
    state = seed
    for _ in range(max_draws):
        if found >= len(transforms):
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
    return extend_augmentations(task, IDENTITY_ROW[None], num_aug, seed)


def extend_augmentations(task: Task, known: np.ndarray, num_aug: int, seed: int) -> np.ndarray:
    """Returns `known` uint8 [n, 11] and more augmentations of a task, until there are 1 + `num_aug`; all that draws of
    `sample_augmentations` can tell apart, if these are fewer.  With the seed of `known` these are what it goes on with.
    """
    moments, shapes = colour_moments(task.pairs)
    rows = np.empty((max(num_aug + 1, len(known)), 1 + NUM_COLOURS), dtype=np.uint8)
    rows[: len(known)] = known
    found = _draw(
        moments,
        shapes,
        COLOUR_TABLE,
        task_seed(seed, task.id),
        DRAWS_PER_AUGMENTATION * num_aug,
        rows[:, 0],
        rows[:, 1:],
        len(known),
    )
    return rows[:found]


def plan_augmentations(
    tasks: list[Task],
    num_aug: Sequence[int],
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[np.ndarray]:
    """Samples the augmentations of every task, on `workers` threads; the result does not depend on their number.

    Args:
        num_aug: how many to look for of each task.
        progress: called with (tasks done, tasks in total).

    Returns:
        For each task uint8 [puzzles, 11], as `sample_augmentations` returns it.
    """
    wanted = list(zip(tasks, num_aug, strict=True))
    blocks = [wanted[first : first + TASKS_AT_ONCE] for first in range(0, len(tasks), TASKS_AT_ONCE)]
    plan: list[np.ndarray] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for rows in pool.map(lambda block: [sample_augmentations(task, n, seed) for task, n in block], blocks):
            plan += rows
            if progress is not None:
                progress(len(plan), len(tasks))
    return plan
