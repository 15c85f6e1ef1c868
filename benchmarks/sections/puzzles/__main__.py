"""Measures a thousand to a hundred million puzzles: build, open, step, checkpoint and memory, by kind of table.

    python -m benchmarks.sections.puzzles RESULT.json [--puzzles 1000 ..] [--folder FOLDER] [--only data_sets|tables]

Data sets are those of `data_sets.py`, tables those of `tables.py` beside this file.  Each measurement is
a process of its own.  The file is written after each one, and keeps those of other sizes that it had.  Then

    python -m benchmarks.sections.puzzles.page RESULT.json

puts the results into docs/performance.md, as tables and a figure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.run import hardware
from benchmarks.sections.puzzles import data_sets, tables
from benchmarks.timing import busy_cores
from utils.files import write_atomically


class Results:
    """The file of results, which is written after each measurement."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known: dict[str, Any] = json.loads(path.read_text())["results"] if path.exists() else {}

    def add_all(self, found: dict[str, dict[str, Any]]) -> None:
        """Adds stages of several sizes, by their number of puzzles."""
        for puzzles, stages in found.items():
            self.add(int(puzzles), stages)

    def add(self, puzzles: int, found: dict[str, Any]) -> None:
        """Adds stages of one size, in place of the same stages that are there."""
        self.known.setdefault(str(puzzles), {}).update(found)
        kept = {
            **hardware(torch.device("cpu")),
            "busy_cores": round(busy_cores(), 2),
            "epochs": data_sets.EPOCHS,
            "global_batch_size": data_sets.BATCH,
            "results": dict(sorted(self.known.items(), key=lambda item: int(item[0]))),
        }
        text = json.dumps(kept, indent=1) + "\n"
        write_atomically(self._path, lambda file: file.write(text.encode()))


def measure_tables(puzzles: int, folder: Path) -> dict[str, Any]:
    """Measures each kind of table at one size; of one that does not fit it says what it needs."""
    found: dict[str, Any] = {}
    for arm in tables.ARMS:
        if (room := tables.missing_room(arm, puzzles, folder)) is not None:
            found[arm] = room
            continue
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.sections.puzzles.tables", arm, str(puzzles), str(folder)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        found[arm] = json.loads(done.stdout.splitlines()[-1])
        print(f"{puzzles:>12,}  {arm:<26}{tables.in_words(found[arm])}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sections.puzzles",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, help="where the results are kept as JSON")
    parser.add_argument("--puzzles", nargs="+", type=int, default=list(tables.SIZES), help="numbers of puzzles")
    parser.add_argument("--folder", type=Path, help="where tasks and data sets are made; they stay there")
    parser.add_argument("--only", choices=("data_sets", "tables"), help="data sets alone, or tables alone")
    given = parser.parse_args()
    results = Results(given.results)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sizes = [puzzles for puzzles in given.puzzles if puzzles in data_sets.SIZES]
        if given.only != "tables":
            data_sets.measure(folder, sizes, results.add_all)
        if given.only != "data_sets":
            for puzzles in given.puzzles:
                results.add(puzzles, {"tables": measure_tables(puzzles, folder)})
    print(json.dumps(results.known))


if __name__ == "__main__":
    main()
