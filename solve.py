"""Solves a puzzle of your own, from one JSON file to a picture with attempts:

    python solve.py examples/mirror.json --weights FOLDER --out answer.png

The file is one task as ARC has them, {"train": [{"input": .., "output": ..}, ..], "test": [{"input": ..}]}, a grid a
list of rows of colours 0 to 9.  FOLDER is an exported network (python -m training.export), a checkpoint, a run, or
hf://OWNER/NAME[/FILE][@REVISION].  The network learns the puzzle from its demonstrations first.  The best attempts are
printed as digits, all of them are in answer.attempts.json.  Settings of fine-tuning and prediction have their usual
names: --settings lr=1e-4 device=cuda
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dataset import tasks
from dataset.tasks import Task
from evaluators import solver
from evaluators.picture import draw_task
from evaluators.solver import Solution, Solver
from utils.cli import command
from utils.errors import DataError, InputError, SettingError
from utils.files import write_atomically


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


def answers_beside(picture: Path, puzzle: Path) -> Path:
    """Returns where all attempts are written: beside the picture, under a name that puzzles do not have.

    Raises:
        SettingError: if the picture cannot be written there, or the puzzle's own file would be overwritten.
    """
    if picture.suffix != ".png" or not picture.resolve().parent.is_dir():
        raise SettingError(f"--out {picture} is not a place for a picture: name a .png in a folder that exists")
    answers = picture.with_suffix(".attempts.json")
    if puzzle.resolve() in (picture.resolve(), answers.resolve()):
        raise SettingError(f"--out {picture} would overwrite the puzzle {puzzle}: give another name to one of them")
    return answers


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


def solve_puzzle(given: argparse.Namespace) -> str:
    """Solves the puzzle, writes the picture and the attempts, and returns what to print."""
    answers = answers_beside(given.out, given.puzzle)
    if importlib.util.find_spec("PIL") is None:
        raise InputError('pictures need the package pillow, which is missing: pip install -e ".[pictures]"')
    task = read_puzzle(given.puzzle, given.task)
    solution = Solver.load(given.weights, **parse_settings(given.settings)).solve(
        task,
        augmentations=given.augmentations,
        finetune_steps=given.steps,
        seed=given.seed,
    )
    conditions = {name: str(value) for name, value in vars(given).items() if name not in ("out", "attempts")}
    write_atomically(answers, to_json(solution, conditions))
    draw_task(solution.describe(given.attempts), given.out)
    return f"{format_best(solution)}\nto look at: {given.out}; all attempts: {answers}"


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("puzzle", type=Path, help="a JSON file with demonstrations and test inputs")
    parser.add_argument(
        "--weights", required=True, help="an exported network, a checkpoint, a run, or hf://OWNER/NAME[/FILE]"
    )
    parser.add_argument("--out", type=Path, default=Path("answer.png"), help="the picture (%(default)s)")
    parser.add_argument("--task", help="which task, if the file has several")
    parser.add_argument(
        "--augmentations", type=int, default=solver.AUGMENTATIONS, help="besides the puzzle itself (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=solver.STEPS, help="of fine-tuning (%(default)s)")
    parser.add_argument("--attempts", type=int, default=3, help="in the picture (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", nargs="+", default=[], help="key=value .., as of eval_arc_k10.py")
    print(solve_puzzle(parser.parse_args()))


if __name__ == "__main__":
    main()
