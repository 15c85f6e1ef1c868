"""Finds duplicate tasks: equal up to id, augmentation, order of pairs, and which pairs are demonstrations.

A test task with a duplicate among the training tasks is contaminated: a score on it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dataset.build.pair_hashes import canonical_key
from dataset.tasks import Task


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
