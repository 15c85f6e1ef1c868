"""Scores ranked candidates by pass@k, and the simplest possible submission: the input itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.storage import Split
from dataset.tasks import Task
from evaluators.inference.predictions import PredictionSnapshot
from evaluators.voting import Votes
from utils.files import write_atomically

SCORES = "scores.json"
"""Written last, so that an evaluation that has this file is complete."""

ALL = "all/"
"""How the names of the published statistics begin in a log, which has no objects within objects."""

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
    """Writes `scores.json`: the metrics, those of `all` in an object of their own, and what they depend on."""
    own = {name: value for name, value in metrics.items() if not name.startswith(ALL)}
    of_all = {name.removeprefix(ALL): value for name, value in metrics.items() if name.startswith(ALL)}
    text = json.dumps({**own, **({"all": of_all} if of_all else {}), "conditions": dict(conditions)}, indent=1)
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


STATISTICS = ("accuracy", "exact_accuracy", "lm_loss", "q_halt_accuracy", "q_halt_loss", "steps")
"""What the published system says of all augmented test examples with a known output, under `all`."""

READ_AT_ONCE = 8192


def statistics_of(snapshot: PredictionSnapshot, split: Split) -> dict[str, float] | None:
    """Returns the published means over the predicted examples whose output is known, each counted once.

    Each example counts by its last answer.  `accuracy` is the fraction of right cells, `exact_accuracy` of completely
    right answers; `lm_loss` is the negative log-likelihood per cell (of the cells on the canvas of the answer);
    `q_halt_accuracy` says how often the sign of the halting logit agrees with being right, `q_halt_loss` is its
    cross-entropy; `steps` are the ACT steps.

    Returns:
        by the names of `STATISTICS`; None if no output is known, or if it is not known which examples were predicted.
        Without `lm_loss` if the snapshot does not have it.
    """
    predictions, examples = snapshot.predictions, snapshot.examples
    if examples is None or not len(examples):
        return None
    order = np.lexsort((predictions.steps, examples))
    last = order[np.append(examples[order][1:] != examples[order][:-1], True)]
    ignore = split.metadata.ignore_label_id
    sums, count = dict.fromkeys(STATISTICS, 0.0), 0
    for first in range(0, len(last), READ_AT_ONCE):
        rows = last[first : first + READ_AT_ONCE]
        labels = split.read(examples[rows])[1]
        labelled = np.ones(labels.shape, dtype=bool) if ignore is None else labels != ignore
        is_known = labelled.any(1)
        rows, labels, labelled = rows[is_known], labels[is_known], labelled[is_known]
        right, cells = ((predictions.tokens[rows] == labels) & labelled).sum(1), labelled.sum(1)
        logits, is_exact = predictions.q_halt[rows].astype(np.float64), right == cells
        count += len(rows)
        sums["accuracy"] += float((right / cells).sum())
        sums["exact_accuracy"] += int(is_exact.sum())
        sums["lm_loss"] += 0.0 if snapshot.lm_loss is None else float(snapshot.lm_loss[rows].sum(dtype=np.float64))
        sums["q_halt_accuracy"] += int(((logits >= 0) == is_exact).sum())
        sums["q_halt_loss"] += float(np.logaddexp(0, np.where(is_exact, -logits, logits)).sum())
        sums["steps"] += int(predictions.steps[rows].sum())
    if snapshot.lm_loss is None:
        del sums["lm_loss"]
    return {name: value / count for name, value in sums.items()} if count else None


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
    """Returns the 95 % interval of a mean over tasks, from 2,000 samples of the tasks with replacement.

    Where no task, or every task, is solved, samples do not spread; it is then the interval of a proportion.
    """
    if min(values) == max(values) and values[0] in (0, 1):
        return wilson_interval(round(sum(values)), len(values))
    rng = np.random.default_rng(0)
    means = rng.choice(np.asarray(values), (2000, len(values))).mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def published_line(metrics: Mapping[str, Any]) -> str:
    """Returns the dictionary that the published system prints after an evaluation, on one line."""
    of_all = {name: metrics[ALL + name] for name in STATISTICS if ALL + name in metrics}
    known = {name: metrics[name] for name in (f"ARC/pass@{k}" for k in KS) if name in metrics}
    rounded = {name: float(f"{value:.6g}") for name, value in of_all.items()}
    return str(({"all": rounded} if rounded else {}) | {name: float(f"{value:.6g}") for name, value in known.items()})


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
