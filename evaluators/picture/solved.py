"""Draws held-out puzzles that a run has solved as one PNG: a row for each.

    python -m evaluators.picture.solved RUN [--out FILE.png] [--rows 3]

A row shows demonstrations, the test input, the answer after each ACT step and the attempt that is right.  The puzzles
are chosen by a rule: the first attempt is right; then those whose first step was wrong come first, then large ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluators.picture.painter import Image, Painter, save_png
from evaluators.report.saved_run import read_saved_run
from evaluators.report.task_values import SOLVED, find_differences
from utils.cli import command
from utils.errors import DataError

SOLVED_PICTURE = "solved.png"
CELL, GAP = 20, 30
MOST_DEMONSTRATIONS, MOST_STEPS = 3, 4


class Solved(NamedTuple):
    """A test input whose first attempt is right, with its task, as `describe_tasks` has them."""

    task: Mapping[str, Any]
    test: Mapping[str, Any]


def choose_solved(tasks: Sequence[Mapping[str, Any]], count: int) -> list[Solved]:
    """Returns test inputs that a run has solved by its first attempt, the most telling first, one of each task."""
    found = []
    for task in tasks:
        for test in task["test"]:
            if test["attempts"] and test["truth"] is not None and test["attempts"][0]["grid"] == test["truth"]:
                found.append(Solved(task, test))
                break

    def telling(solved: Solved) -> tuple[bool, bool, int, str]:
        steps, truth = solved.test["steps"], solved.test["truth"]
        comes_to_it = bool(steps) and steps[0] != truth and steps[-1] == truth
        changes = any(before != after for before, after in pairwise(steps))
        # Of a grid without differences from its input nothing is seen; of one that is larger, more.
        seen = len(find_differences(solved.test["input"], truth)) or len(truth)
        return (not comes_to_it, not changes, -seen, solved.task["id"])

    return sorted(found, key=telling)[:count]


def draw_solved_of_run(run: Path, out: Path, count: int, data: Path | None = None) -> int:
    """Draws the best puzzles that a run's latest evaluation has solved; returns how many test inputs it has solved.

    Raises:
        DataError: if it has solved none by its first attempt.
    """
    tasks = read_saved_run(run, data)[1]["tasks"]
    solved = sum(test["status"] == SOLVED for task in tasks for test in task["test"])
    chosen = choose_solved(tasks, count)
    if not chosen:
        raise DataError(f"none of the {solved} solved test inputs is solved by its first attempt: look at report.html")
    draw_solved(chosen, out)
    return solved


def draw_solved(chosen: Sequence[Solved], path: Path) -> None:
    """Writes the rows, at least one, as a PNG.

    Raises:
        InputError: if Pillow, which draws letters and writes the file, is not installed.
    """
    save_png(lambda painter: _rows(painter, chosen), path)


def _rows(painter: Painter, chosen: Sequence[Solved]) -> Image:
    rows = [_row(painter, solved) for solved in chosen]
    width = max(row.shape[1] for row in rows)
    line = painter.blank(2, width, "line")
    parts = [part for row in rows for part in (row, line)][:-1]
    return painter.framed(painter.below(parts, GAP), GAP, "ground")


def _row(painter: Painter, solved: Solved) -> Image:
    demonstrations = solved.task["train"][:MOST_DEMONSTRATIONS]
    shown = [
        painter.beside(
            [
                painter.figure(f"demonstration {number}", pair["input"], cell=CELL),
                _arrow(painter),
                painter.figure("", pair["output"], cell=CELL),
            ],
            10,
        )
        for number, pair in enumerate(demonstrations, start=1)
    ]
    test = solved.test
    first, steps = test["attempts"][0], test["steps"]
    shown_steps = sorted({round(i) for i in np.linspace(1, len(steps), MOST_STEPS)}) if steps else []
    answer = [painter.figure("test input", test["input"], cell=CELL), _arrow(painter)]
    answer += [painter.figure(f"step {number}", steps[number - 1], test["truth"], cell=CELL) for number in shown_steps]
    votes = f"{first['votes']:g} of {test['votes']:g} votes"
    answer += [_arrow(painter), painter.figure(f"answer, {votes}", first["grid"], test["truth"], cell=CELL)]
    bar = painter.blank(max(len(image) for image in shown), 4, "accent")
    return painter.beside([*shown, bar, painter.beside(answer, 14)], GAP)


def _arrow(painter: Painter) -> Image:
    """Returns an arrow below the height of a caption."""
    return painter.below([painter.blank(50, 1, "ground"), painter.arrow("ground")], 0)


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m evaluators.picture.solved",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="the folder of a run of eval_arc_k10.py")
    parser.add_argument("--data", type=Path, help="its data set, if it has moved")
    parser.add_argument("--rows", type=int, default=3, help="how many puzzles")
    parser.add_argument("--out", type=Path, help=f"the picture; RUN/{SOLVED_PICTURE} by default")
    given = parser.parse_args()
    out = given.out or given.run / SOLVED_PICTURE
    draw_solved_of_run(given.run, out, given.rows, given.data)
    print(out)


if __name__ == "__main__":
    main()
