"""Draws one task as a PNG, with what its page shows of it.

python -m evaluators.picture RUN TASK [--out FILE.png]          what a run's latest evaluation made of a task
python -m evaluators.picture DATA_SET PUZZLE [--out FILE.png]   a puzzle of a built data set, as the model sees it
python -m evaluators.picture.solved RUN [--out FILE.png]        puzzles that a run has solved, a row for each
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from evaluators.picture.painter import draw_task
from evaluators.report.data_set import describe_puzzle
from evaluators.report.saved_run import read_saved_run
from evaluators.scores import list_evaluations
from utils.cli import command
from utils.errors import DataError


def describe_task(folder: Path, name: str, data: Path | None = None) -> dict[str, Any]:
    """Returns what is known of a task: from a run's folder its latest evaluation, from a data set the examples.

    Args:
        data: the run's data set, if it has moved.

    Raises:
        DataError: if there is no such task.
    """
    if not list_evaluations(folder):
        return describe_puzzle(folder, name)
    tasks = {task["id"]: task for task in read_saved_run(folder, data)[1]["tasks"]}
    if name not in tasks:
        raise DataError(
            f"{name[:80]!r} is not a task that {folder} has evaluated: name one such as {next(iter(tasks))}"
        )
    return tasks[name]


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m evaluators.picture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of a run of eval_arc_k10.py, or of a data set")
    parser.add_argument("task", help="id of the task, or name of the puzzle")
    parser.add_argument("--data", type=Path, help="the run's data set, if it has moved")
    parser.add_argument("--out", type=Path, help="the picture; TASK.png by default")
    given = parser.parse_args()
    out = given.out or Path(f"{given.task.replace('/', '_')[:80]}.png")
    draw_task(describe_task(given.folder, given.task, given.data), out)
    print(out)


if __name__ == "__main__":
    main()
