"""Draws the figures of the documentation.

python -m docs.figures                    those that follow from the code
python -m docs.figures --run RUN          also solved.svg, of a finished run of eval_arc_k10.py
python -m docs.figures --curves FOLDER    also curves.svg, of the runs in a folder, seed by seed
python -m docs.figures --check            writes nothing; the exit status is 1 if one of the code's is out of date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from docs.figures.structure.architecture import draw
from docs.figures.structure.imports import ROOT, read_layers
from docs.figures.subjects.augmentations import draw_augmented
from docs.figures.subjects.checkpoints import draw_checkpoint
from docs.figures.subjects.curves import draw_curves_of
from docs.figures.subjects.recursion import draw_recursion
from docs.figures.subjects.slots import draw_slots
from docs.figures.subjects.solved import draw_solved_run
from models.arch import ArchConfig
from utils.cli import command
from utils.files import write_atomically

FOLDER = ROOT / "docs" / "figures"
COMMAND = "python -m docs.figures"

FROM_CODE: dict[str, Callable[[], str]] = {
    "architecture.svg": lambda: draw(read_layers(ROOT)),
    "recursion.svg": lambda: draw_recursion(ArchConfig()),
    "slots.svg": lambda: draw_slots(ArchConfig()),
    "augmentations.svg": draw_augmented,
    "checkpoint.svg": draw_checkpoint,
}
"""The figures that need no run."""


def find_run(folder: Path) -> Path:
    """Returns the run that was evaluated: the folder, or the fine-tuning of a demonstration in it."""
    return folder / "finetune" if (folder / "finetune").is_dir() else folder


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="a run that has an evaluation, or the folder of a demonstration")
    parser.add_argument("--data", type=Path, help="the data set of that run, if it has moved")
    parser.add_argument("--curves", type=Path, help="a folder of runs with logs")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the figures go; docs/figures by default")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a drawing is out of date")
    given = parser.parse_args()
    if given.check:
        _check()
        return
    drawn = {name: make() for name, make in FROM_CODE.items()}
    if given.run:
        drawn["solved.svg"] = draw_solved_run(find_run(given.run), given.data)
    if given.curves:
        drawn["curves.svg"] = draw_curves_of(given.curves)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        write_atomically(given.out / name, figure)
        print(given.out / name)
    if not given.run:
        print("solved.svg needs a finished run: --run RUN")
    if not given.curves:
        print("curves.svg needs a folder of runs: --curves FOLDER")


def _check() -> None:
    old = [
        name
        for name, make in FROM_CODE.items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text(encoding="utf-8") != make()
    ]
    if old:
        sys.exit(f"error: docs/figures/{', '.join(old)} out of date: run {COMMAND}")
    print(f"{', '.join(FROM_CODE)} are up to date")


if __name__ == "__main__":
    main()
