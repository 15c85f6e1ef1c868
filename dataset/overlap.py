"""Finds tasks that are the same but for id, augmentation or order of pairs."""

from __future__ import annotations

import hashlib

import numpy as np

from dataset.augmentation import NUM_COLOURS, NUM_DIHEDRAL, dihedral
from dataset.tasks import Pair, Task


def _colour_keys(pairs: tuple[Pair, ...], transform: int) -> np.ndarray:
    """For each colour a key of where it occurs, whatever it is called and however the pairs are ordered."""
    places: list[list[bytes]] = [[] for _ in range(NUM_COLOURS)]
    for pair in pairs:
        turned = [None if grid is None else dihedral(grid, transform) for grid in pair]
        for colour in range(NUM_COLOURS):
            where = b"|".join(
                b"" if grid is None else f"{grid.shape}".encode() + np.packbits(grid == colour).tobytes()
                for grid in turned
            )
            places[colour].append(hashlib.sha256(where).digest())
    return np.array([hashlib.sha256(b"".join(sorted(keys))).digest() for keys in places], dtype=object)


def canonical_keys(pairs: tuple[Pair, ...]) -> str:
    """A key that is equal for two lists of pairs if and only if one is the other under a dihedral transform, a
    permutation of the colours 1..9 and an order (but for hash collisions)."""
    keys = []
    for transform in range(NUM_DIHEDRAL):
        colours = _colour_keys(pairs, transform)
        rank = {0: 0}
        # Colours are renamed by the order of their keys, which no permutation changes.
        for new, old in enumerate(sorted(range(1, NUM_COLOURS), key=lambda c: colours[c]), start=1):
            rank[old] = new
        rename = np.array([rank[c] for c in range(NUM_COLOURS)], dtype=np.uint8)
        rows = []
        for pair in pairs:
            turned = [None if grid is None else rename[dihedral(grid, transform)] for grid in pair]
            rows.append(b"|".join(b"" if g is None else f"{g.shape}".encode() + g.tobytes() for g in turned))
        keys.append(hashlib.sha256(b"/".join(sorted(rows))).hexdigest())
    return min(keys)


def duplicates(trained: list[Task], tested: list[Task]) -> list[tuple[str, str]]:
    """(test task, training task) for each test task whose demonstrations and test inputs are also a training task's,
    under any id, augmentation or order.

    Pairs are compared by all they have in common: where a test output is unknown on one side, by the inputs alone.
    """

    def key(task: Task) -> str:
        return canonical_keys(tuple((pair[0], None) for pair in task.test) + task.train)

    known: dict[str, str] = {key(task): task.id for task in trained}
    return [(task.id, known[k]) for task in tested if (k := key(task)) in known]
