"""Makes the runs of a comparison: each in a process of one thread, several side by side; finished ones are kept."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.learning.comparisons import BATCH, COMMON, Comparison
from benchmarks.learning.task_sets import DataSets
from evaluators.scores import list_evaluations
from utils.metrics_log import read_metrics

PRETRAINING = 0.6
"""The fraction of the steps before the new tasks are met, in the form `new_tasks`."""


@dataclass(frozen=True)
class Job:
    """One run of an arm.

    folder: of the run.  settings: of the arm.  steps: of both stages together.
    """

    folder: Path
    data: DataSets
    settings: tuple[str, ...]
    seed: int
    steps: int

    @property
    def is_done(self) -> bool:
        return bool(list_evaluations(self.folder))

    def run(self) -> None:
        """Trains and evaluates; goes on from the last checkpoint of a run that was cut off."""
        if self.is_done:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        first, steps = self.folder / "pretrain", self.steps
        more: tuple[str, ...] = ()
        if self.data.before is not None:
            steps = round(self.steps * (1 - PRETRAINING))
            _start(["pretrain_no_eval.py", *self._words(first, self.data.before, self.steps - steps)], self.folder)
            more = (f"load_checkpoint={first}", "puzzle_rows=mean")
        _start(["eval_arc_k10.py", *self._words(self.folder, self.data.scored, steps), *more], self.folder)

    def _words(self, folder: Path, data: Path, steps: int) -> list[str]:
        groups = json.loads((data / "train" / "dataset.json").read_text(encoding="utf-8"))["total_groups"]
        epochs = max(1, round(steps * BATCH / groups))
        return [
            *(f"data_paths=[{data}]", f"checkpoint_path={folder}", f"seed={self.seed}", *COMMON, *self.settings),
            *(f"epochs={epochs}", "eval_interval=null"),
        ]

    def rate(self) -> float:
        """Returns the steps per second of the last stage."""
        lines = [line for line in read_metrics(self.folder / "metrics.jsonl") if "lm_loss" in line]
        return statistics.median(line["examples_per_second"] for line in lines) / BATCH


def _start(words: Sequence[str], folder: Path) -> None:
    with open(folder / "output.txt", "a", encoding="utf-8") as output:
        done = subprocess.run(
            [sys.executable, *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        sys.exit(f"error: a run ended with status {done.returncode}: see {folder / 'output.txt'}")


def jobs_of(root: Path, comparison: Comparison, data: DataSets, seeds: Iterable[int]) -> dict[str, list[Job]]:
    """Returns the runs of each arm at equal steps, one for each seed."""
    return {
        arm: [Job(root / _name(arm, seed), data, settings, seed, comparison.steps) for seed in seeds]
        for arm, settings in comparison.arms.items()
    }


def jobs_of_equal_time(root: Path, jobs: dict[str, list[Job]]) -> dict[str, list[Job]]:
    """Returns the runs that take as long as those of the first arm, after `jobs` at equal steps are done."""
    rates = {arm: statistics.median(job.rate() for job in made) for arm, made in jobs.items()}
    base = next(iter(rates.values()))
    found = {}
    for arm, made in jobs.items():
        steps = round(made[0].steps * rates[arm] / base)
        near = abs(steps - made[0].steps) < 0.02 * made[0].steps  # a run that is there serves
        found[arm] = [
            job if near else Job(root / f"{_name(arm, job.seed)}-time", job.data, job.settings, job.seed, steps)
            for job in made
        ]
    return found


def _name(arm: str, seed: int) -> str:
    return f"{''.join(c if c.isalnum() else '-' for c in arm)}-{seed}"


def run_all(jobs: Iterable[Job], side_by_side: int) -> None:
    """Makes the runs, some of them side by side, and prints a line for each that ends."""
    todo = [job for job in jobs if not job.is_done]

    def run(job: Job) -> None:
        job.run()
        print(f"done: {job.folder}", flush=True)

    with ThreadPoolExecutor(side_by_side) as pool:
        list(pool.map(run, todo))
