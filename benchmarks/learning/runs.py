"""Makes the runs of a comparison: each in a process of one thread, several side by side; finished ones are kept."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.comparisons import BATCH, COMMON, STAGES, Comparison
from benchmarks.learning.task_sets import DataSets
from dataset.sampling.joined import JoinedSplits
from dataset.storage import open_split
from evaluators.scores import list_evaluations
from utils.metrics_log import read_metrics

PRETRAINING = 0.6
"""The fraction of the steps before the new tasks are met, in the form `new_tasks`."""

CPU = "cpu.jsonl"
"""In the folder of a run, for each of its processes: a line when it starts, and one with its CPU time when it ends."""

PRETRAIN, FINETUNE = STAGES


@dataclass(frozen=True)
class Job:
    """One run of an arm.

    folder: of the run.  settings: of the arm, after those that are common.  steps: of both stages together.
    batch: the batch size that the settings set.  evaluations: how often the run is evaluated.
    """

    folder: Path
    data: DataSets
    settings: tuple[str, ...]
    seed: int
    steps: int
    common: tuple[str, ...] = COMMON
    batch: int = BATCH
    evaluations: int = 1

    @property
    def is_done(self) -> bool:
        """Whether the last planned evaluation is there."""
        return len(list_evaluations(self.folder)) >= self.evaluations

    def run(self) -> None:
        """Trains and evaluates; goes on from the last checkpoint of a run that was cut off."""
        if self.is_done:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        *before, last = self.commands()
        for words in before:
            if not _has_ended(self.folder, words[0]):
                _start(words, self.folder)
        _start(last, self.folder)

    def commands(self) -> list[list[str]]:
        """Returns the commands of the run's stages."""
        first, steps = self.folder / "pretrain", self.steps
        if self.data.before is None:
            return [["eval_arc_k10.py", *self._words(self.folder, self.data.scored, steps, FINETUNE)]]
        steps = round(self.steps * (1 - PRETRAINING))
        before = self._words(first, self.data.before, self.steps - steps, PRETRAIN)
        start = (f"load_checkpoint={first}", "puzzle_rows=mean")
        return [
            ["pretrain_no_eval.py", *before],
            ["eval_arc_k10.py", *self._words(self.folder, self.data.scored, steps, FINETUNE, start)],
        ]

    def _words(self, folder: Path, data: Path, steps: int, stage: str, start: tuple[str, ...] = ()) -> list[str]:
        """Returns the settings of a stage.  Hydra takes the last of several values, so an arm's own comes last."""
        split = open_split(data, "train")
        examples = split.metadata.total_groups * split.metadata.mean_puzzle_examples  # of an epoch
        if split.visit_sizes is not None:  # a visit does not take all of a puzzle's
            examples = JoinedSplits([split]).examples_per_epoch
        evaluations = self.evaluations if stage == FINETUNE else 1
        interval = max(1, round(steps * self.batch / examples / evaluations))
        own = [word.removeprefix(stage) for word in self.settings]
        return [
            *(f"data_paths=[{data}]", f"checkpoint_path={folder}", f"seed={self.seed}", *self.common, *start),
            *(word for word in own if not word.startswith(STAGES)),
            *(f"epochs={interval * evaluations}", f"eval_interval={interval}"),
        ]

    def steps_before(self) -> int:
        """Returns the steps that pretraining has made; 0 if there is none."""
        if self.data.before is None:
            return 0
        return int(read_metrics(self.folder / "pretrain" / "metrics.jsonl")[-1]["step"])

    def cpu_seconds(self) -> float | None:
        """Returns the CPU time of the processes of all stages, start-up, compilation and evaluation included.

        None if a process was cut off: what it did before is then done twice, or its time is not known.
        """
        lines = _read_cpu(self.folder)
        ended = [line for line in lines if line.get("status") == 0]
        stages = 1 if self.data.before is None else 2
        if len(ended) != stages or len(lines) != 2 * stages:
            return None
        return float(sum(line["cpu_seconds"] for line in ended))


def _read_cpu(folder: Path) -> list[dict[str, Any]]:
    path = folder / CPU
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [dict(json.loads(line)) for line in lines]


def _has_ended(folder: Path, script: str) -> bool:
    return any(line["script"] == script and line.get("status") == 0 for line in _read_cpu(folder))


def _write_cpu(folder: Path, line: Mapping[str, Any]) -> None:
    with open(folder / CPU, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _start(words: Sequence[str], folder: Path) -> None:
    """Runs a script to its end, and writes down the CPU time of its process and of those that it waited for."""
    _write_cpu(folder, {"script": words[0]})
    with open(folder / "output.txt", "a", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = used.ru_utime + used.ru_stime
    _write_cpu(folder, {"script": words[0], "status": process.returncode, "cpu_seconds": round(seconds, 3)})
    if process.returncode:
        sys.exit(f"error: a run ended with status {process.returncode}: see {folder / 'output.txt'}")


def job_of(
    root: Path, comparison: Comparison, arm: str, settings: tuple[str, ...], data: DataSets, seed: int, steps: int
) -> Job:
    """Returns a run of an arm.  Its folder is named by all that decides what it computes, so the same run serves again.

    The name is made of plain characters, since it is a value of a setting: Hydra refuses `=` in one.
    """
    decides = [*map(str, (data.before and data.before.resolve(), data.scored.resolve(), PRETRAINING, steps))]
    decides += [*comparison.common, "|", *settings, "|", str(comparison.evaluations)]
    digest = hashlib.sha256("\n".join(decides).encode()).hexdigest()[:8]
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in arm)
    return Job(
        folder=root / f"{plain}-{steps}-{digest}-{seed}",
        data=data,
        settings=settings,
        seed=seed,
        steps=steps,
        common=comparison.common,
        batch=comparison.batch,
        evaluations=comparison.evaluations,
    )


def jobs_of(
    root: Path, comparison: Comparison, data: Mapping[str, DataSets], seeds: Iterable[int]
) -> dict[str, list[Job]]:
    """Returns the runs of each arm at equal steps, one for each seed.

    Args:
        data: by arm.
    """
    seeds = list(seeds)
    return {
        arm: [job_of(root, comparison, arm, settings, data[arm], seed, comparison.steps) for seed in seeds]
        for arm, settings in comparison.arms.items()
    }


def jobs_of_equal_time(root: Path, comparison: Comparison, jobs: Mapping[str, list[Job]]) -> dict[str, list[Job]]:
    """Returns the runs that take as much CPU time as those of the first arm, after `jobs` at equal steps are done."""
    seconds = {arm: _median_seconds(arm, made) for arm, made in jobs.items()}
    base = next(iter(seconds.values()))
    found = {}
    for arm, made in jobs.items():
        steps = round(made[0].steps * base / seconds[arm])
        near = abs(steps - made[0].steps) < 0.02 * made[0].steps  # a run that is there serves
        found[arm] = [
            job if near else job_of(root, comparison, arm, job.settings, job.data, job.seed, steps) for job in made
        ]
    return found


def _median_seconds(arm: str, jobs: Iterable[Job]) -> float:
    known = [seconds for job in jobs if (seconds := job.cpu_seconds()) is not None]
    if not known:
        sys.exit(f"error: every run of {arm} was cut off, so its CPU time is not known: delete one of its folders")
    return statistics.median(known)


def in_order(jobs: Mapping[str, Sequence[Job]]) -> list[Job]:
    """Returns the runs by seed, then by arm, so that a change of the machine's load is the same for all arms."""
    return [job for of_seed in zip(*jobs.values(), strict=True) for job in of_seed]


def run_all(jobs: Iterable[Job], side_by_side: int) -> None:
    """Makes the runs, some of them side by side, and prints a line for each that ends."""
    todo = [job for job in jobs if not job.is_done]

    def run(job: Job) -> None:
        job.run()
        print(f"done: {job.folder}", flush=True)

    with ThreadPoolExecutor(side_by_side) as pool:
        list(pool.map(run, todo))
