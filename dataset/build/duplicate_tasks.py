"""Finds duplicate tasks: equal up to id, augmentation, order of pairs, and which pairs are demonstrations.

A test task with a duplicate among the training tasks is contaminated: a score on it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, permutations, product

import numpy as np

from dataset.augmentation import NUM_COLOURS, NUM_DIHEDRAL
from dataset.build.pair_hashes import COLOUR_TABLE, colour_hashes, colour_moments, set_hash
from dataset.tasks import Pair, Task


def canonical_key(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Returns a 128-bit key of a set of pairs.

    Two sets have the same key if one becomes the other by a dihedral transform and a permutation of the colours 1..9,
    and otherwise only by a collision of hashes.

    Each colour has a hash of the cells where it is, which no permutation changes.  The colours are renamed in the order
    of these hashes.  Colours with equal hashes are tried in every order, and the smallest key counts.
    """
    moments, shapes = colour_moments(pairs)
    return min(
        set_hash(moments[transform], shapes[transform], COLOUR_TABLE, renamed)
        for transform in range(NUM_DIHEDRAL)
        for renamed in colour_renamings(moments[transform], shapes[transform])
    )


def inputs_key(task: Task) -> str:
    """Returns a key of the inputs of a task, those of demonstrations and test pairs together: 32 hexadecimal digits.

    It does not depend on the task's id, its augmentation and the order of its pairs.
    """
    first, second = canonical_key([(pair[0], None) for pair in task.pairs])
    return f"{int(first):016x}{int(second):016x}"


def find_duplicates(
    trained: Sequence[Task], tested: Sequence[Task], keys: Mapping[str, str] | None = None
) -> list[tuple[str, str]]:
    """Returns (id of the test task, id of the training task) for each test task that has a duplicate in `trained`.

    Two tasks are duplicates if their inputs are equal, and also their outputs.  Where an output is not known, the
    inputs decide.

    Args:
        keys: `inputs_key` of each task by id, if they are known already; ids must then be unique.
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


def colour_renamings(moments: np.ndarray, shapes: np.ndarray) -> Iterator[np.ndarray]:
    """Yields what each colour becomes, uint8 [10], for every order of the colours that agrees with their hashes.

    Colours that do not occur come last.
    """
    keys = colour_hashes(moments, shapes)
    present = [c for c in range(1, NUM_COLOURS) if moments[:, c].any()]
    absent = [c for c in range(1, NUM_COLOURS) if c not in present]
    ties = [list(tied) for _, tied in groupby(sorted(present, key=lambda c: keys[c]), key=lambda c: keys[c])]
    for order in product(*map(permutations, ties)):
        renamed = np.zeros(NUM_COLOURS, dtype=np.uint8)
        for new, old in enumerate([*(c for tied in order for c in tied), *absent], start=1):
            renamed[old] = new
        yield renamed
