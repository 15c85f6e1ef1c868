"""Makes submissions in the competition's form: for every task one entry per test input, attempt_1 .. attempt_K."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset.tasks import Task, parse_grid
from evaluators.voting import Votes
from utils.errors import SubmissionError
from utils.files import write_atomically

SUBMISSION, KAGGLE_SUBMISSION = "submission.json", "submission_kaggle.json"
KAGGLE_ATTEMPTS = 2

Submission = dict[str, list[dict[str, list[list[int]]]]]


def build_submission(votes: Votes, tasks: Mapping[str, Task], attempts: int) -> Submission:
    """Returns the best `attempts` candidates of every test input.

    An input with fewer candidates repeats its best one.  An input without any submits itself.
    """
    submission: Submission = {}
    for task_id, task in tasks.items():
        entries = []
        for index, (given, _) in enumerate(task.test):
            grids = [candidate.grid.tolist() for candidate in votes.get((task_id, index), ())[:attempts]]
            grids += [grids[0] if grids else given.tolist()] * (attempts - len(grids))
            entries.append({f"attempt_{n}": grid for n, grid in enumerate(grids, start=1)})
        submission[task_id] = entries
    return submission


def list_unanswered(votes: Votes, tasks: Mapping[str, Task]) -> list[tuple[str, int]]:
    """Returns the test inputs without any candidate, as (task id, index)."""
    return [
        (task_id, index)
        for task_id, task in tasks.items()
        for index in range(len(task.test))
        if not votes.get((task_id, index))
    ]


def check_submission(submission: Any, tasks: Mapping[str, Task], attempts: int) -> None:
    """Checks a submission as the competition does.

    Raises:
        SubmissionError: naming the first thing that it would refuse.
        DataError: if that is a grid.
    """
    if not isinstance(submission, Mapping):
        raise SubmissionError(f"a submission is an object of tasks, not a {type(submission).__name__}")
    if missing := sorted(tasks.keys() ^ submission.keys()):
        where = "missing from" if missing[0] in tasks else "too many in"
        raise SubmissionError(f"task {missing[0]!r} is {where} the submission: it needs exactly the test set's tasks")
    wanted = {f"attempt_{n}" for n in range(1, attempts + 1)}
    for task_id, task in tasks.items():
        entries = submission[task_id]
        if not isinstance(entries, list) or len(entries) != len(task.test):
            have: Any = len(entries) if isinstance(entries, list) else type(entries).__name__
            raise SubmissionError(
                f"task {task_id!r} needs {len(task.test)} entries, one per test input, and has {have}"
            )
        for i, entry in enumerate(entries):
            where = f"task {task_id!r}, test input {i}"
            if not isinstance(entry, Mapping) or entry.keys() != wanted:
                have = sorted(entry) if isinstance(entry, Mapping) else entry
                raise SubmissionError(f"{where} needs {sorted(wanted)} and has {have}")
            for name, grid in entry.items():
                parse_grid(grid, f"{where}, {name}")


def format_submission(submission: Submission) -> str:
    """Returns a submission as the text of its file."""
    return json.dumps(submission, separators=(",", ":"))


def write_submission(submission: Submission, path: Path) -> None:
    """Replaces the file by the complete submission, or leaves it as it is."""
    write_atomically(path, format_submission(submission))


def format_submissions(votes: Votes, tasks: Mapping[str, Task], attempts: int) -> dict[str, str]:
    """Returns the text of `submission.json` (`attempts` per test input) and of `submission_kaggle.json` (2), by name.

    Raises:
        SubmissionError, DataError: see `check_submission`.
    """
    texts = {}
    for name, k in ((SUBMISSION, attempts), (KAGGLE_SUBMISSION, KAGGLE_ATTEMPTS)):
        submission = build_submission(votes, tasks, k)
        check_submission(submission, tasks, k)
        texts[name] = format_submission(submission)
    return texts
