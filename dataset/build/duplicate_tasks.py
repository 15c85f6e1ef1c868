"""Finds duplicate tasks: equal up to id, augmentation, order of pairs, and which pairs are demonstrations.

A test task with a duplicate among the training tasks is contaminated: a score on it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dataset.augmentation import NUM_COLOURS
from dataset.build.pair_hashes import canonical_key
from dataset.tasks import Pair, Task


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


class PairIndex:
    """Finds pairs that are equal up to an augmentation.

    A pair of `tasks` whose output is not known is found by its input.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._pairs: dict[tuple[object, ...], list[Pair]] = {}
        for task in tasks:
            for pair in task.pairs:
                self._pairs.setdefault(_outline(pair), []).append(pair)
        self._keys: dict[tuple[object, ...], set[tuple[int, int]]] = {}

    def __contains__(self, pair: Pair) -> bool:
        return self._has(pair) or (pair[1] is not None and self._has((pair[0], None)))

    def _has(self, pair: Pair) -> bool:
        outline = _outline(pair)  # cheap, and different for nearly all pairs
        if outline not in self._pairs:
            return False
        if outline not in self._keys:
            self._keys[outline] = {canonical_key([other]) for other in self._pairs[outline]}
        return canonical_key([pair]) in self._keys[outline]


def _outline(pair: Pair) -> tuple[object, ...]:
    """Returns what no augmentation changes of a pair and is quickly found: sides, and how often colours occur."""
    parts: list[object] = []
    for grid in pair:
        if grid is not None:
            counts = np.bincount(grid.reshape(-1), minlength=NUM_COLOURS)
            parts += [*sorted(grid.shape), int(counts[0]), *sorted(counts[1:].tolist())]
    return tuple(parts)


def _same_outputs(a: Task, b: Task) -> bool:
    if any(pair[1] is None for task in (a, b) for pair in task.pairs):
        return True
    return canonical_key(a.pairs) == canonical_key(b.pairs)
