"""Reads what the runs of a comparison have reached, and compares arms by seed and task."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.runs import Job
from dataset.storage import open_catalog, open_test_tasks
from evaluators.inference.predictions import PREDICTIONS, Predictions
from evaluators.scores import list_evaluations, rank_of
from evaluators.voting import count_votes
from utils.metrics_log import read_metrics

KS = (1, 2, 10)


@dataclass(frozen=True)
class Outcome:
    """What one run has reached.

    ranks: by task, of the true output of each test input among the candidates; 0 if it is not among them.
    train_exact: fraction of right training examples at the end of training.
    loss: of training, at the end.  held_out_loss: mean over augmented test examples of the negative log-likelihood
    per cell of the true output; None if the evaluation does not say it.
    seconds: of the last stage's training.
    """

    seed: int
    steps: int
    seconds: float
    ranks: dict[str, list[int]]
    train_exact: float
    loss: float
    held_out_loss: float | None

    def solved(self, k: int, chosen: Callable[[str], bool] = lambda _: True) -> float:
        """Returns the fraction of the test inputs of some tasks that are solved within k candidates."""
        ranks = [rank for task, of_task in self.ranks.items() if chosen(task) for rank in of_task]
        return sum(0 < rank <= k for rank in ranks) / len(ranks)

    def mean_reciprocal_rank(self) -> float:
        ranks = [rank for of_task in self.ranks.values() for rank in of_task]
        return sum(1 / rank for rank in ranks if rank) / len(ranks)


def outcome_of(job: Job) -> Outcome:
    """Reads a run that is done."""
    folder = list_evaluations(job.folder)[-1]
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    tasks = open_test_tasks(job.data.scored)
    votes = count_votes(Predictions.load(folder / PREDICTIONS), open_catalog(job.data.scored))
    ranks = {
        name: [
            int(0 if math.isinf(rank) else rank)
            for i, (_, truth) in enumerate(task.test)
            if truth is not None
            for rank in [rank_of([candidate.grid for candidate in votes.get((name, i), ())], truth)]
        ]
        for name, task in tasks.items()
    }
    log = [line for line in read_metrics(job.folder / "metrics.jsonl") if "lm_loss" in line]
    end = [line for line in log if line["step"] > 0.9 * log[-1]["step"]]
    return Outcome(
        seed=job.seed,
        steps=job.steps,
        seconds=log[-1]["step"] / job.rate(),
        ranks=ranks,
        train_exact=statistics.mean(line["exact_accuracy"] or 0.0 for line in end),  # None: no example ended
        loss=statistics.mean(line["lm_loss"] for line in end),
        held_out_loss=scores.get("all", {}).get("lm_loss"),
    )


def bootstrap_difference(
    one: Sequence[Outcome], other: Sequence[Outcome], k: int, chosen: Callable[[str], bool] = lambda _: True
) -> tuple[float, float, float]:
    """Returns the mean difference of pass@k, one - other, and its 95 % interval.

    Pairs by seed and task: tasks and seeds are drawn with replacement, 4,000 times, the same for both.
    """
    pairs = list(zip(one, other, strict=True))
    assert all(a.seed == b.seed and a.ranks.keys() == b.ranks.keys() for a, b in pairs)
    tasks = [task for task in pairs[0][0].ranks if chosen(task)]
    gain = np.array(
        [[sum(0 < r <= k for r in a.ranks[t]) - sum(0 < r <= k for r in b.ranks[t]) for t in tasks] for a, b in pairs],
        dtype=np.float64,
    )
    size = np.array([len(pairs[0][0].ranks[t]) for t in tasks], dtype=np.float64)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(4000):
        seeds, drawn = rng.integers(len(pairs), size=len(pairs)), rng.integers(len(tasks), size=len(tasks))
        draws.append(gain[np.ix_(seeds, drawn)].mean(0).sum() / size[drawn].sum())
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(gain.mean(0).sum() / size.sum()), float(low), float(high)


def smallest_difference(outcomes: Mapping[str, Sequence[Outcome]], k: int) -> float | None:
    """Returns how large a difference of two means over seeds must be to be more than the spread between seeds.

    Two standard errors of such a difference, from the pooled variance within the arms; None with one seed.
    """
    groups = [[outcome.solved(k) for outcome in found] for found in outcomes.values() if len(found) > 1]
    if not groups:
        return None
    variance = statistics.mean(statistics.variance(group) for group in groups)
    return 2 * math.sqrt(2 * variance / min(map(len, groups)))


def summarise(
    outcomes: Mapping[str, Sequence[Outcome]], chosen: Callable[[str], bool] = lambda _: True
) -> dict[str, Any]:
    """Returns mean and range of every witness by arm, and each arm's difference from the first."""
    first = next(iter(outcomes))
    found: dict[str, Any] = {}
    for arm, runs in outcomes.items():
        witnesses: dict[str, list[float]] = {f"pass@{k}": [run.solved(k, chosen) for run in runs] for k in KS}
        witnesses["training exactness"] = [run.train_exact for run in runs]
        witnesses["training loss"] = [run.loss for run in runs]
        witnesses["1 / rank"] = [run.mean_reciprocal_rank() for run in runs]
        known = [run.held_out_loss for run in runs if run.held_out_loss is not None]
        if len(known) == len(runs):
            witnesses["held-out loss"] = known
        witnesses["seconds"] = [run.seconds for run in runs]
        found[arm] = {
            name: {"mean": statistics.mean(values), "low": min(values), "high": max(values)}
            for name, values in witnesses.items()
        }
        found[arm]["steps"] = runs[0].steps
        if arm != first:
            found[arm]["difference"] = {f"pass@{k}": bootstrap_difference(runs, outcomes[first], k, chosen) for k in KS}
    return found


def as_json(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, list[dict[str, Any]]]:
    return {arm: [asdict(outcome) for outcome in runs] for arm, runs in outcomes.items()}


def from_json(found: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[Outcome]]:
    return {arm: [Outcome(**outcome) for outcome in runs] for arm, runs in found.items()}


def read_file(path: Path) -> dict[str, Any]:
    """Reads the JSON of a comparison."""
    return dict(json.loads(path.read_text(encoding="utf-8")))
