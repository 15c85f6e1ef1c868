"""Makes submissions in the competition's form: for every task one entry per test input, attempt_1 .. attempt_K."""

from __future__ import annotations

import json
import re
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

NO_ANSWER: list[list[int]] = []
"""What stands in a submission where nothing is answered."""

ATTEMPT = re.compile(r"attempt_\d+")


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


def read_submission(path: Path) -> Submission:
    """Returns a submission of whatever program, as the competition has them, with `NO_ANSWER` where there is none.

    That is a file of tasks by id; or one file per task, ID.json, which lists its test inputs; or a folder of these.  An
    attempt is a grid, or an object with the grid as its `answer`.  One that is null, empty or missing is no answer, and
    what else an entry has is not looked at.

    Raises:
        SubmissionError: naming the file, the task and the test input that cannot be read.
        DataError: if that is a grid.
    """
    if path.is_dir():
        files = sorted(each for each in path.glob("*.json") if not each.name.startswith("."))
        listed = {each: _read_json(each) for each in files}
        tasks = {each.stem: entries for each, entries in listed.items() if isinstance(entries, list)}
        if not tasks:
            raise SubmissionError(f"{path} has no file ID.json with a list of test inputs: name a submission file")
    else:
        given = _read_json(path)
        tasks = {path.stem: given} if isinstance(given, list) and given else given
    if not isinstance(tasks, dict):
        raise SubmissionError(f"{path} is not a submission: it has a {type(tasks).__name__}, not tasks by id")
    return {task: _read_entries(entries, f"{path}: task {task!r}") for task, entries in tasks.items()}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise SubmissionError(f"{path} cannot be read ({error}): name a submission file") from None


def _read_entries(entries: Any, where: str) -> list[dict[str, list[list[int]]]]:
    """Returns the attempts at each test input of a task."""
    if not isinstance(entries, list):
        raise SubmissionError(f"{where} has no list of entries, one per test input: correct it")
    read = []
    for i, entry in enumerate(entries):
        if entry and not isinstance(entry, dict):
            raise SubmissionError(
                f"{where}, test input {i} is a {type(entry).__name__}, not attempts by name: correct it"
            )
        attempts = {name: value for name, value in entry.items() if ATTEMPT.fullmatch(name)} if entry else {}
        if entry and not attempts:
            raise SubmissionError(f"{where}, test input {i} has no attempt_1: correct it")
        read.append(
            {name: _read_attempt(value, f"{where}, test input {i}, {name}") for name, value in attempts.items()}
        )
    return read


def _read_attempt(value: Any, where: str) -> list[list[int]]:
    grid = value.get("answer") if isinstance(value, dict) else value
    if grid is None or grid == NO_ANSWER:
        return NO_ANSWER
    parse_grid(grid, where)
    return grid


def number_of(attempt: str) -> int:
    """Returns N of `attempt_N`."""
    return int(attempt.removeprefix("attempt_"))


def count_gaps(submission: Submission, attempts: int) -> int:
    """Returns how many of the attempts are no answer."""
    return sum(
        entry.get(f"attempt_{n}", NO_ANSWER) == NO_ANSWER
        for entries in submission.values()
        for entry in entries
        for n in range(1, attempts + 1)
    )


def check_submission(submission: Any, tasks: Mapping[str, Task], attempts: int, gaps: bool = False) -> None:
    """Checks a submission as the competition does.

    Args:
        gaps: accept attempts that are no answer.

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
            if not isinstance(entry, Mapping) or not (entry.keys() == wanted or (gaps and entry.keys() <= wanted)):
                have = sorted(entry) if isinstance(entry, Mapping) else entry
                raise SubmissionError(f"{where} needs {sorted(wanted)} and has {have}")
            for name, grid in entry.items():
                if not (gaps and grid == NO_ANSWER):
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
