"""pass@k of ranked candidates, and of the simplest thing that could be submitted: the input."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.voting import Votes

SCORES = "scores.json"
"""Written last of all, so that an evaluation which has it is whole."""


def evaluations(run: Path) -> list[Path]:
    """The folders of a run's whole evaluations, the latest last."""
    folders = [path for path in run.glob("evaluation_step_*") if (path / SCORES).is_file()]
    return sorted(folders, key=lambda path: int(path.name.rpartition("_")[2]))


def conditions_of(folder: Path) -> dict[str, Any]:
    """What the scores of an evaluation depend on; empty where it is not whole."""
    try:
        return dict(json.loads((folder / SCORES).read_text(encoding="utf-8"))["conditions"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def is_done(folder: Path, conditions: Mapping[str, Any]) -> bool:
    """Whether an evaluation under these conditions lies whole in `folder`."""
    return conditions_of(folder) == dict(conditions)


KS = (1, 2, 5, 10, 100, 1000)

TestTasks = Mapping[str, Any]
"""{task id: {"train": [{"input", "output"}], "test": [{"input", "output" where known}]}}"""


def has_solutions(test_tasks: TestTasks) -> bool:
    """Whether every test output is known."""
    return all("output" in pair for task in test_tasks.values() for pair in task["test"])


def rank_of(candidates: Sequence[np.ndarray], truth: Any) -> float:
    """The place (from 1) of the truth among the candidates; infinity if it is not there."""
    wanted = np.asarray(truth)
    for rank, grid in enumerate(candidates, start=1):
        if np.array_equal(grid, wanted):
            return rank
    return float("inf")


def wilson(solved: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, after Wilson (1927)."""
    z = 1.959964
    share, spread = solved / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean over tasks, by drawing the tasks again 2,000 times."""
    rng = np.random.default_rng(0)
    drawn = rng.choice(np.asarray(values), (2000, len(values))).mean(1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def _pass_at(ranks: Mapping[str, Sequence[float]], ks: Sequence[int], prefix: str) -> dict[str, Any]:
    inputs = [rank for task in ranks.values() for rank in task]
    scores: dict[str, Any] = {}
    for k in ks:
        shares = [float(np.mean([rank <= k for rank in task])) for task in ranks.values()]
        solved = sum(rank <= k for rank in inputs)
        scores[f"{prefix}pass@{k}"] = float(np.mean(shares))
        scores[f"{prefix}pass@{k}_inputs"] = solved / len(inputs)
        scores[f"{prefix}pass@{k}_95"] = _bootstrap(shares)
        scores[f"{prefix}pass@{k}_inputs_95"] = wilson(solved, len(inputs))
    return scores


def pass_at_k(votes: Votes, test_tasks: TestTasks, ks: Sequence[int] = KS) -> dict[str, Any] | None:
    """`ARC/pass@K`: over tasks, the mean share of test inputs solved within k candidates; `ARC/pass@K_inputs`: over
    test inputs, which is Kaggle's score; each with its 95 % interval under `.._95`.  None where a solution is missing.
    """
    if not test_tasks or not has_solutions(test_tasks):
        return None
    ranks = {
        task_id: [
            rank_of([c.grid for c in votes.get((task_id, i), ())], pair["output"])
            for i, pair in enumerate(task["test"])
        ]
        for task_id, task in test_tasks.items()
    }
    return _pass_at(ranks, ks, "ARC/")


def copy_baseline(test_tasks: TestTasks) -> float | None:
    """The share of test inputs that are their own outputs: what submitting the input would score."""
    if not test_tasks or not has_solutions(test_tasks):
        return None
    return float(np.mean([pair["input"] == pair["output"] for task in test_tasks.values() for pair in task["test"]]))
