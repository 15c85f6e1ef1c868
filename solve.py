"""Solves a puzzle of your own: an ARC task, a Sudoku or a maze.

    python solve.py examples/mirror.json --weights FOLDER --out answer.png
    python solve.py 53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79 --weights FOLDER
    python solve.py boards.csv --weights FOLDER --out answer.csv

An ARC task is a JSON file, {"train": [{"input": .., "output": ..}, ..], "test": [{"input": ..}]}, a grid a list of rows
of colours 0 to 9.  The network learns it from its demonstrations first.  The best attempts are printed as digits and
drawn, all of them are in answer.attempts.json.

Sudoku and mazes are a table (CSV, JSON lines, parquet) with a column for questions, a text file, or a text itself;
docs/data.md lists the layouts.  All are predicted at once.  The answers are printed, and written to answer.csv and
answer.answers.json with how sure the network is and which rules they keep.

FOLDER is an exported network (python -m training.export), a checkpoint, a run, or hf://OWNER/NAME[/FILE][@REVISION].
Settings of fine-tuning and prediction have their usual names: --settings lr=1e-4 device=cuda
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dataset import tasks
from dataset.layouts.tables import Columns, TableRow
from dataset.tasks import Task
from evaluators import solver
from evaluators.grid_puzzles.given import read_given
from evaluators.grid_puzzles.solver import GridPuzzleSolver
from evaluators.picture import draw_task
from evaluators.solver import Solution, Solver
from utils.cli import command
from utils.errors import DataError, InputError, SettingError
from utils.files import write_atomically

OF_TASKS: dict[str, Any] = {
    "task": None,
    "augmentations": solver.AUGMENTATIONS,
    "steps": solver.STEPS,
    "attempts": 3,
    "seed": 0,
}
"""Options that ARC tasks alone have, and their defaults."""

SHOWN = 3
"""So many answers are printed; the files have all."""


def read_puzzle(path: Path, chosen: str | None) -> Task:
    """Returns the task of a file, or the one called `chosen` if the file has several.

    Raises:
        DataError: naming the file and what is wrong with it.
    """
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


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """Returns settings that are given as `key=value`, as on the command line of eval_arc_k10.py."""
    if wrong := [item for item in given if "=" not in item]:
        raise SettingError(f"{wrong[0]!r} is not a setting: write it as key=value, such as lr=1e-4")
    try:
        return {key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in given)}
    except (yaml.YAMLError, ValueError):  # a ValueError: a date that does not exist
        raise SettingError(
            f"--settings {' '.join(given)} cannot be read: quote lists, as in 'canvases=[[11,11]]'"
        ) from None


def file_beside(out: Path, ending: str, beside: str, given: str) -> Path:
    """Returns where everything is written that `out` does not show: beside it, under a name that puzzles do not have.

    Args:
        ending: that `out` must have.
        beside: the ending of the other file.
        given: the puzzle; if it is a file, neither may overwrite it.

    Raises:
        SettingError: if nothing can be written there, or the puzzle's own file would be overwritten.
    """
    if out.suffix != ending or not out.resolve().parent.is_dir():
        what = "a picture" if ending == ".png" else "a table of answers"
        raise SettingError(f"--out {out} is not a place for {what}: name a {ending} in a folder that exists")
    other = out.with_suffix(beside)
    if os.path.isfile(given) and Path(given).resolve() in (out.resolve(), other.resolve()):
        raise SettingError(f"--out {out} would overwrite the puzzle {given}: give another name to one of them")
    return other


def format_best(solution: Solution) -> str:
    """Returns the best attempt at each test input as digits, and how sure it is."""
    lines = []
    for i, candidates in enumerate(solution.attempts, start=1):
        if not candidates:
            lines.append(f"test input {i}: no prediction showed a grid")
            continue
        best, votes = candidates[0], sum(c.votes for c in candidates)
        lines.append(f"test input {i}: {best.votes} of {votes} votes, halting {best.mean_halt:.0%}")
        lines += ["  " + " ".join(map(str, row)) for row in best.grid.tolist()]
    return "\n".join(lines)


def to_json(solution: Solution, conditions: dict[str, Any]) -> str:
    """Returns all attempts, the best first, and under what conditions they were made."""
    tests = [
        [{"grid": c.grid.tolist(), "votes": c.votes, "halt": round(c.mean_halt, 4)} for c in candidates]
        for candidates in solution.attempts
    ]
    return json.dumps({"puzzle": solution.puzzle.id, "attempts": tests, "conditions": conditions}) + "\n"


def solve_task(given: argparse.Namespace) -> str:
    """Solves an ARC task, writes the picture and the attempts, and returns what to print."""
    if importlib.util.find_spec("PIL") is None:
        raise InputError('pictures need the package pillow, which is missing: pip install -e ".[pictures]"')
    for name, default in OF_TASKS.items():
        if getattr(given, name) is None:
            setattr(given, name, default)
    given.out = given.out or Path("answer.png")
    answers = file_beside(given.out, ".png", ".attempts.json", given.puzzle)
    task = read_puzzle(Path(given.puzzle), given.task)
    solution = Solver.load(given.weights, **parse_settings(given.settings)).solve(
        task,
        augmentations=given.augmentations,
        finetune_steps=given.steps,
        seed=given.seed,
    )
    write_atomically(answers, to_json(solution, conditions_of(given)))
    draw_task(solution.describe(given.attempts), given.out)
    return f"{format_best(solution)}\nto look at: {given.out}; all attempts: {answers}"


def complete_boards(given: argparse.Namespace, rows: Sequence[TableRow]) -> str:
    """Completes Sudoku or mazes, writes the answers, and returns what to print."""
    if unused := [name for name in OF_TASKS if getattr(given, name) is not None]:
        raise SettingError(f"--{unused[0]} is for ARC tasks: leave it out, since Sudoku and mazes need no fine-tuning")
    given.out = given.out or Path("answer.csv")
    other = file_beside(given.out, ".csv", ".answers.json", given.puzzle)
    answers = GridPuzzleSolver.load(given.weights, **parse_settings(given.settings)).solve(rows)
    answers.write_json(other, conditions_of(given))
    answers.write_csv(given.out)
    return f"{answers.describe(SHOWN)}\nall answers: {given.out}; as JSON: {other}"


def conditions_of(given: argparse.Namespace) -> dict[str, str]:
    """Returns what the answers depend on, as text; options that were not given are left out."""
    known = {name: value for name, value in vars(given).items() if value not in (None, "")}
    return {name: str(value) for name, value in known.items() if name not in ("out", "attempts")}


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("puzzle", help="a JSON file with one task; Sudoku or mazes as a table, a text file or a text")
    made.add_argument(
        "--weights", required=True, help="an exported network, a checkpoint, a run, or hf://OWNER/NAME[/FILE]"
    )
    made.add_argument("--out", type=Path, help="the picture (answer.png), or the table of answers (answer.csv)")
    tasks = made.add_argument_group("ARC tasks")
    tasks.add_argument("--task", help="which task, if the file has several")
    tasks.add_argument("--augmentations", type=int, help=f"besides the task itself ({solver.AUGMENTATIONS})")
    tasks.add_argument("--steps", type=int, help=f"of fine-tuning ({solver.STEPS})")
    tasks.add_argument("--attempts", type=int, help=f"in the picture ({OF_TASKS['attempts']})")
    tasks.add_argument("--seed", type=int, help=f"of augmentations and batches ({OF_TASKS['seed']})")
    boards = made.add_argument_group("tables of Sudoku and mazes")
    for role in ("question", "answer"):
        boards.add_argument(f"--{role}-column", default="", help=f"the column of the {role}s, if its name is unusual")
    made.add_argument("--settings", nargs="+", default=[], help="key=value .., as of eval_arc_k10.py")
    return made


@command
def main() -> None:
    given = parser().parse_args()
    rows = read_given(given.puzzle, Columns(given.question_column, given.answer_column))
    print(solve_task(given) if rows is None else complete_boards(given, rows))


if __name__ == "__main__":
    main()
