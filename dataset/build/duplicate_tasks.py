"""Finds tasks that are the same but for id, augmentation, order of pairs and which pairs are demonstrations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, permutations, product

import numba
import numpy as np

from dataset.augmentation import NUM_COLOURS, NUM_DIHEDRAL
from dataset.build.distinct_augmentations import COLOUR_TABLE, colour_moments, set_hash
from dataset.hashing import splitmix64
from dataset.tasks import Pair, Task


def canonical_key(pairs: Sequence[Pair]) -> tuple[int, int]:
    """A 128-bit key that is equal for two sets of pairs if and only if, but for collisions, one is the other under a
    dihedral transform and a permutation of the colours 1..9.

    Colours are renamed by the order of a hash of where they lie, which no permutation changes; of those that lie alike
    every order is tried.
    """
    moments, shapes = colour_moments(pairs)
    return min(
        set_hash(moments[transform], shapes[transform], COLOUR_TABLE, renamed)
        for transform in range(NUM_DIHEDRAL)
        for renamed in _renamings(moments[transform], shapes[transform])
    )


def inputs_key(task: Task) -> str:
    """What the inputs of a task, demonstrations and test inputs together, are whatever its id, augmentation and order:
    32 hexadecimal digits."""
    first, second = canonical_key([(pair[0], None) for pair in task.pairs])
    return f"{int(first):016x}{int(second):016x}"


def duplicates(
    trained: Sequence[Task], tested: Sequence[Task], keys: Mapping[str, str] | None = None
) -> list[tuple[str, str]]:
    """(test task, training task) for each test task that is also trained on, under any id, augmentation or order.

    Tasks are the same if their inputs are, demonstrations and test pairs together, and their outputs too, unless some
    of them are unknown.

    Args:
        keys: `inputs_key` of each task by id, where they are known already; ids must then be unique.
    """
    keys = keys or {task.id: inputs_key(task) for task in (*trained, *tested)}
    by_inputs: dict[str, list[Task]] = {}
    for task in trained:
        by_inputs.setdefault(keys[task.id], []).append(task)
    found = []
    for task in tested:
        candidates = by_inputs.get(keys[task.id], [])
        same = next((other for other in candidates if _same_outputs(task, other)), None)
        if same is not None:
            found.append((task.id, same.id))
    return found


def _same_outputs(a: Task, b: Task) -> bool:
    if any(pair[1] is None for task in (a, b) for pair in task.pairs):
        return True
    return canonical_key(a.pairs) == canonical_key(b.pairs)


def _renamings(moments: np.ndarray, shapes: np.ndarray) -> Iterator[np.ndarray]:
    """What each colour becomes, uint8 [10], for every order of the colours that agrees with that of their keys."""
    keys = _colour_keys(moments, shapes)
    present = [c for c in range(1, NUM_COLOURS) if moments[:, c].any()]
    absent = [c for c in range(1, NUM_COLOURS) if c not in present]
    ties = [list(tied) for _, tied in groupby(sorted(present, key=lambda c: keys[c]), key=lambda c: keys[c])]
    for order in product(*map(permutations, ties)):
        renamed = np.zeros(NUM_COLOURS, dtype=np.uint8)
        for new, old in enumerate([*(c for tied in order for c in tied), *absent], start=1):
            renamed[old] = new
        yield renamed


@numba.njit(nogil=True, cache=True)
def _colour_keys(moments, shapes):  # type: ignore[no-untyped-def]
    """For each colour a hash, uint64 [10], of where it lies in all pairs, whatever their order and its name."""
    keys = np.zeros(NUM_COLOURS, dtype=np.uint64)
    for p in range(moments.shape[0]):
        for c in range(NUM_COLOURS):
            keys[c] += splitmix64(moments[p, c, 0] ^ splitmix64(moments[p, c, 1] ^ shapes[p, 0]))
    return keys
