"""Reads puzzles of one's own, and says what was found for them as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset import tasks
from dataset.tasks import Task
from evaluators.solver.solution import Solution
from utils.errors import DataError, SettingError

ATTEMPTS = ".attempts.json"
"""How the name of a file of answers ends."""


def read_puzzles(paths: Sequence[Path], chosen: str | None) -> list[Task]:
    """Returns the tasks of files, one of each; a folder stands for its .json files, in the order of their names.

    Args:
        chosen: which task, where one file has several.

    Raises:
        DataError: naming the file and what is wrong with it.
        SettingError: if `chosen` does not say which task is meant, or two puzzles have one name.
    """
    files: list[Path] = []
    for path in paths:
        found = [path]
        if path.is_dir():  # answers that lie beside the puzzles are not puzzles
            found = sorted(file for file in path.glob("*.json") if not file.name.endswith(ATTEMPTS))
        if not found:
            raise DataError(f"the folder {path} has no .json file: name one with puzzles")
        files += found
    read = [_read_puzzle(path, chosen) for path in files]
    names = [task.id for task in read]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise SettingError(f"two of the puzzles are called {double}: rename one, since answers are written by name")
    return read


def _read_puzzle(path: Path, chosen: str | None) -> Task:
    if not path.is_file():
        raise DataError(f"there is no file {path}: name a JSON file with one task")
    value = tasks.read_json(path)
    if isinstance(value, dict) and "train" not in value and value and all(isinstance(v, dict) for v in value.values()):
        if chosen is None and len(value) > 1:
            raise SettingError(
                f"{path} has {len(value)} tasks: choose one by --task, such as --task {next(iter(value))}"
            )
        name = next(iter(value)) if chosen is None else chosen
        if name not in value:
            raise SettingError(f"{path} has no task {name}: it has {', '.join(list(value)[:5])}, ..")
        return tasks.parse_task(name, "own", value[name], f"{path}: task {name!r}")
    return tasks.parse_task(path.stem, "own", value, str(path))


def to_json(solution: Solution, conditions: Mapping[str, Any]) -> str:
    """Returns all attempts, the best first, and under what conditions they were made."""
    tests = [
        [{"grid": c.grid.tolist(), "votes": c.votes, "halt": round(c.mean_halt, 4)} for c in candidates]
        for candidates in solution.attempts
    ]
    return json.dumps({"puzzle": solution.puzzle.id, "attempts": tests, "conditions": dict(conditions)}) + "\n"


def pictures_in(out: Path, puzzles: Sequence[Task]) -> list[Path]:
    """Returns where the picture of each of several puzzles is written: in the folder `out`, which is made if need be.

    Raises:
        SettingError: if there cannot be such a folder.
    """
    if out.suffix == ".png" or not out.resolve().parent.is_dir() or out.is_file():
        raise SettingError(f"--out {out} cannot be a folder for several pictures: name one, such as answers")
    names: list[str] = []
    for puzzle in puzzles:
        name = puzzle.id.replace("/", "_")
        same = (name, *(f"{name}-{number}" for number in range(2, len(puzzles) + 1)))  # "a/b" and "a_b" are two
        names.append(next(each for each in same if each not in names))
    return [out / f"{name}.png" for name in names]
