"""Submissions in the competition's form: every task, one entry per test input in order, attempt_1 .. attempt_K."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset.tasks import parse_grid
from evaluators.scores import TestTasks
from evaluators.voting import Votes
from utils.files import write_atomically

Submission = dict[str, list[dict[str, list[list[int]]]]]


def build(votes: Votes, test_tasks: TestTasks, attempts: int) -> Submission:
    """The best `attempts` candidates of every test input.

    An input with fewer candidates repeats its best one; one without any keeps its place and submits itself.
    """
    submission: Submission = {}
    for task_id, task in test_tasks.items():
        entries = []
        for i, pair in enumerate(task["test"]):
            grids = [c.grid.tolist() for c in votes.get((task_id, i), ())[:attempts]]
            grids += [grids[0] if grids else pair["input"]] * (attempts - len(grids))
            entries.append({f"attempt_{n}": grid for n, grid in enumerate(grids, start=1)})
        submission[task_id] = entries
    return submission


def unanswered(votes: Votes, test_tasks: TestTasks) -> list[tuple[str, int]]:
    """The test inputs without any candidate."""
    return [(t, i) for t, task in test_tasks.items() for i in range(len(task["test"])) if not votes.get((t, i))]


def validate(submission: Any, test_tasks: TestTasks, attempts: int) -> None:
    """Raises ValueError for the first thing that the competition would refuse."""
    if not isinstance(submission, Mapping):
        raise ValueError(f"a submission is an object of tasks, not a {type(submission).__name__}")
    if missing := sorted(test_tasks.keys() ^ submission.keys()):
        where = "missing from" if missing[0] in test_tasks else "too many in"
        raise ValueError(f"task {missing[0]!r} is {where} the submission: it needs exactly the test set's tasks")
    for task_id, task in test_tasks.items():
        entries = submission[task_id]
        if not isinstance(entries, list) or len(entries) != len(task["test"]):
            have: Any = len(entries) if isinstance(entries, list) else type(entries).__name__
            raise ValueError(f"task {task_id!r} needs {len(task['test'])} entries, one per test input, and has {have}")
        for i, entry in enumerate(entries):
            wanted = {f"attempt_{n}" for n in range(1, attempts + 1)}
            if not isinstance(entry, Mapping) or entry.keys() != wanted:
                have = sorted(entry) if isinstance(entry, Mapping) else entry
                raise ValueError(f"task {task_id!r}, test input {i} needs {sorted(wanted)} and has {have}")
            for name, grid in entry.items():
                parse_grid(grid, f"task {task_id!r}, test input {i}, {name}")


def write(submission: Submission, path: Path) -> None:
    """Replaces the file by the whole submission or not at all."""
    write_atomically(path, json.dumps(submission, separators=(",", ":")))
