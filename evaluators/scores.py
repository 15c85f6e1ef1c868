"""Scores ranked candidates by pass@k, and the simplest possible submission: the input itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.tasks import Task
from evaluators.voting import Votes
from utils.files import write_atomically

SCORES = "scores.json"
"""Written last, so that an evaluation that has this file is complete."""

KS = (1, 2, 5, 10, 100, 1000)


def evaluation_folder(run: Path, step: int) -> Path:
    """Returns where a run keeps its evaluation after so many steps."""
    return run / f"evaluation_step_{step}"


def evaluated_step(folder: Path) -> int:
    """Returns the step of an `evaluation_folder`."""
    return int(folder.name.rpartition("_")[2])


def list_evaluations(run: Path) -> list[Path]:
    """Returns the folders of a run's complete evaluations, the latest last."""
    folders = [
        path
        for path in run.glob("evaluation_step_*")
        if re.fullmatch(r"evaluation_step_[0-9]+", path.name) and (path / SCORES).is_file()
    ]
    return sorted(folders, key=evaluated_step)


def write_scores(folder: Path, metrics: Mapping[str, Any], conditions: Mapping[str, Any]) -> None:
    """Writes `scores.json`: the metrics, and what they depend on."""
    text = json.dumps({**metrics, "conditions": dict(conditions)}, indent=1)
    write_atomically(folder / SCORES, text + "\n")


def read_conditions(folder: Path) -> dict[str, Any]:
    """Returns what the scores of an evaluation depend on; empty if the evaluation is not complete."""
    try:
        return dict(json.loads((folder / SCORES).read_text(encoding="utf-8"))["conditions"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def is_evaluated(folder: Path, conditions: Mapping[str, Any]) -> bool:
    """Returns whether the folder has a complete evaluation under these conditions."""
    return read_conditions(folder) == dict(conditions)


def has_solutions(tasks: Mapping[str, Task]) -> bool:
    """Returns whether every test output is known."""
    return all(task.num_unknown == 0 for task in tasks.values())


def rank_of(candidates: Sequence[np.ndarray], truth: np.ndarray) -> float:
    """Returns the rank (from 1) of the truth among the candidates; infinity if it is not among them."""
    for rank, grid in enumerate(candidates, start=1):
        if np.array_equal(grid, truth):
            return rank
    return float("inf")


def wilson_interval(solved: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion, after Wilson (1927)."""
    z = 1.959964
    proportion, spread = solved / count, z * z / count
    middle = (proportion + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(proportion * (1 - proportion) / count + spread / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of a mean over tasks, from 2,000 samples of the tasks with replacement."""
    rng = np.random.default_rng(0)
    means = rng.choice(np.asarray(values), (2000, len(values))).mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def pass_at_k(votes: Votes, tasks: Mapping[str, Task], ks: Sequence[int] = KS) -> dict[str, Any] | None:
    """Returns the scores of ranked candidates, or None if a solution is not known.

    `ARC/pass@K` is the mean over tasks of the fraction of test inputs that are solved within k candidates.
    `ARC/pass@K_inputs` is that fraction over all test inputs, which is Kaggle's score.  Each has its 95 % interval
    under `.._95`.
    """
    if not tasks or not has_solutions(tasks):
        return None
    ranks = {
        task_id: [
            rank_of([candidate.grid for candidate in votes.get((task_id, index), ())], truth)
            for index, (_, truth) in enumerate(task.test)
            if truth is not None
        ]
        for task_id, task in tasks.items()
    }
    ranks_of_inputs = [rank for of_task in ranks.values() for rank in of_task]
    scores: dict[str, Any] = {}
    for k in ks:
        solved_of_task = [float(np.mean([rank <= k for rank in of_task])) for of_task in ranks.values()]
        solved = sum(rank <= k for rank in ranks_of_inputs)
        scores[f"ARC/pass@{k}"] = float(np.mean(solved_of_task))
        scores[f"ARC/pass@{k}_inputs"] = solved / len(ranks_of_inputs)
        scores[f"ARC/pass@{k}_95"] = _bootstrap_interval(solved_of_task)
        scores[f"ARC/pass@{k}_inputs_95"] = wilson_interval(solved, len(ranks_of_inputs))
    return scores


def copy_baseline(tasks: Mapping[str, Task]) -> float | None:
    """Returns what submitting each test input as its own answer scores; None if a solution is not known."""
    if not tasks or not has_solutions(tasks):
        return None
    equal = [
        output is not None and np.array_equal(grid, output) for task in tasks.values() for grid, output in task.test
    ]
    return float(np.mean(equal))
