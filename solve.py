"""Solves puzzles of your own: ARC tasks, Sudoku or mazes.

    python solve.py examples/mirror.json --weights FOLDER --out answer.png
    python solve.py examples/puzzles --weights FOLDER --out answers
    python solve.py 53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79 --weights FOLDER
    python solve.py boards.csv --weights FOLDER --out answer.csv

An ARC task is a JSON file, {"train": [{"input": .., "output": ..}, ..], "test": [{"input": ..}]}, a grid a list of rows
of colours 0 to 9.  The network learns it from its demonstrations first.  The best attempts are printed as digits and
drawn, all of them are in answer.attempts.json.  Of several files, or a folder, a table says which are solved, where the
files have the test outputs, and a folder has the pictures.

Sudoku and mazes are a table (CSV, JSON lines, parquet) with a column for questions, a text file, or a text itself;
docs/data.md lists the layouts.  All are predicted at once.  The answers are printed, and written to answer.csv and
answer.answers.json with how sure the network is and which rules they keep.

FOLDER is an exported network (python -m training.export), a checkpoint, a run, or hf://OWNER/NAME[/FILE][@REVISION].
Settings of fine-tuning and prediction have their usual names: --settings lr=1e-4 device=cuda
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dataset.layouts.tables import Columns, TableRow
from dataset.tasks import Task
from evaluators import solver
from evaluators.grid_puzzles.given import read_given
from evaluators.grid_puzzles.solver import GridPuzzleSolver
from evaluators.picture import draw_task
from evaluators.solver import Solver
from evaluators.submission import KAGGLE_ATTEMPTS
from utils.cli import command
from utils.errors import InputError, SettingError
from utils.files import write_atomically

OF_TASKS: dict[str, Any] = {
    "task": None,
    "augmentations": solver.AUGMENTATIONS,
    "steps": solver.STEPS,
    "attempts": KAGGLE_ATTEMPTS,
    "seed": 0,
}
"""Options that ARC tasks alone have, and their defaults."""

SHOWN = 3
"""So many answers are printed; the files have all."""


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


def solve_tasks(given: argparse.Namespace) -> str:
    """Solves ARC tasks, writes pictures and attempts, and returns what to print."""
    if importlib.util.find_spec("PIL") is None:
        raise InputError('pictures need the package pillow, which is missing: pip install -e ".[pictures]"')
    for name, default in OF_TASKS.items():
        if getattr(given, name) is None:
            setattr(given, name, default)
    is_one = len(given.puzzle) == 1 and not Path(given.puzzle[0]).is_dir()
    if is_one:
        given.out = given.out or Path("answer.png")
        file_beside(given.out, ".png", solver.ATTEMPTS, given.puzzle[0])
    puzzles = solver.read_puzzles([Path(path) for path in given.puzzle], given.task)
    if not is_one:
        given.out = given.out or Path("answers")
    pictures = [given.out] if is_one else solver.pictures_in(given.out, puzzles)
    loaded = Solver.load(given.weights, **parse_settings(given.settings))
    for puzzle in puzzles:
        loaded.check(puzzle)
    solutions: list[solver.Solution] = []
    seconds: list[float] = []
    try:
        for number, (puzzle, picture) in enumerate(zip(puzzles, pictures, strict=True), start=1):
            if not is_one:
                print(f"{number}/{len(puzzles)} {puzzle.id}", file=sys.stderr, flush=True)
            started = time.monotonic()
            solution = solve_task(loaded, puzzle, picture, given)
            solutions.append(solution)
            seconds.append(time.monotonic() - started)
    except BaseException:  # what is solved stays on the screen, whatever ended the rest
        if not is_one:
            print(solver.format_table(solutions, seconds, given.attempts, puzzles))
        raise
    if is_one:
        shown = solver.format_answer(solutions[0], given.attempts)
        where = f"to look at: {given.out}; all attempts: {given.out.with_suffix(solver.ATTEMPTS)}"
    else:
        shown = solver.format_table(solutions, seconds, given.attempts)
        where = f"to look at: the pictures in {given.out}, each with a file of all attempts"
    return "\n".join((shown, where, solver.suggest_next(solutions, given.attempts, given.steps)))


def solve_task(loaded: Solver, puzzle: Task, picture: Path, given: argparse.Namespace) -> solver.Solution:
    """Solves a task, and writes its attempts and its picture."""
    solution = loaded.solve(puzzle, augmentations=given.augmentations, finetune_steps=given.steps, seed=given.seed)
    picture.parent.mkdir(exist_ok=True)
    write_atomically(picture.with_suffix(solver.ATTEMPTS), solver.to_json(solution, conditions_of(given)))
    draw_task(solution.describe(given.attempts), picture)
    return solution


def complete_boards(given: argparse.Namespace, rows: Sequence[TableRow]) -> str:
    """Completes Sudoku or mazes, writes the answers, and returns what to print."""
    if unused := [name for name in OF_TASKS if getattr(given, name) is not None]:
        raise SettingError(f"--{unused[0]} is for ARC tasks: leave it out, since Sudoku and mazes need no fine-tuning")
    given.out = given.out or Path("answer.csv")
    other = file_beside(given.out, ".csv", ".answers.json", given.puzzle[0])
    answers = GridPuzzleSolver.load(given.weights, **parse_settings(given.settings)).solve(rows)
    answers.write_json(other, conditions_of(given))
    answers.write_csv(given.out)
    return f"{answers.describe(SHOWN)}\nall answers: {given.out}; as JSON: {other}"


def conditions_of(given: argparse.Namespace) -> dict[str, str]:
    """Returns what the answers depend on, as text; options that were not given are left out."""
    known = {name: value for name, value in vars(given).items() if value not in (None, "")}
    known["puzzle"] = " ".join(given.puzzle)
    return {name: str(value) for name, value in known.items() if name not in ("out", "attempts")}


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "puzzle",
        nargs="+",
        help="JSON files with a task each, or a folder of them; Sudoku or mazes as a table, a text file or a text",
    )
    made.add_argument(
        "--weights", required=True, help="an exported network, a checkpoint, a run, or hf://OWNER/NAME[/FILE]"
    )
    made.add_argument(
        "--out",
        type=Path,
        help="the picture (answer.png), the folder of several (answers), or the table of answers (answer.csv)",
    )
    tasks = made.add_argument_group("ARC tasks")
    tasks.add_argument("--task", help="which task, if the file has several")
    tasks.add_argument("--augmentations", type=int, help=f"besides the task itself ({solver.AUGMENTATIONS})")
    tasks.add_argument("--steps", type=int, help=f"of fine-tuning ({solver.STEPS})")
    tasks.add_argument("--attempts", type=int, help=f"that count, and that the picture shows ({OF_TASKS['attempts']})")
    tasks.add_argument("--seed", type=int, help=f"of augmentations and batches ({OF_TASKS['seed']})")
    boards = made.add_argument_group("tables of Sudoku and mazes")
    for role in ("question", "answer"):
        boards.add_argument(f"--{role}-column", default="", help=f"the column of the {role}s, if its name is unusual")
    made.add_argument("--settings", nargs="+", default=[], help="key=value .., as of eval_arc_k10.py")
    return made


@command
def main() -> None:
    given = parser().parse_args()
    columns = Columns(given.question_column, given.answer_column)
    several = len(given.puzzle) > 1 or Path(given.puzzle[0]).is_dir()
    rows = None if several else read_given(given.puzzle[0], columns)
    print(solve_tasks(given) if rows is None else complete_boards(given, rows))


if __name__ == "__main__":
    main()
