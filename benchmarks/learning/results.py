"""Reads what the runs of a comparison have reached, and compares arms by seed and task."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.learning.runs import Job
from dataset.storage import open_catalog, open_test_tasks
from evaluators.inference.predictions import PREDICTIONS, Predictions
from evaluators.scores import evaluated_step, list_evaluations, rank_of
from evaluators.voting import count_votes
from utils.metrics_log import read_metrics

KS = (1, 2, 10)


@dataclass(frozen=True)
class Outcome:
    """What one run has reached.

    steps: that were made, in all stages.
    ranks: by task, of the true output of each test input among the candidates; 0 if it is not among them.
    train_exact: fraction of right training examples at the end of training, of all tasks of the last stage.
    loss: of training, at the end.  held_out_loss: mean over the augmented test examples of all scored tasks of the
    negative log-likelihood per cell of the true output; None if the evaluation does not say it.
    cpu_seconds: of all stages; None if the run was cut off.
    """

    seed: int
    steps: int
    cpu_seconds: float | None
    ranks: dict[str, list[int]]
    train_exact: float
    loss: float
    held_out_loss: float | None

    def solved(self, k: int, chosen: Callable[[str], bool] = lambda _: True) -> float:
        """Returns the fraction of the test inputs of some tasks that are solved within k candidates."""
        ranks = self.ranks_of(chosen)
        return sum(0 < rank <= k for rank in ranks) / len(ranks)

    def mean_reciprocal_rank(self, chosen: Callable[[str], bool] = lambda _: True) -> float:
        """Returns the mean of 1 / rank of the true outputs, 0 for those that are not among the candidates."""
        ranks = self.ranks_of(chosen)
        return sum(1 / rank for rank in ranks if rank) / len(ranks)

    def ranks_of(self, chosen: Callable[[str], bool] = lambda _: True) -> list[int]:
        """Returns the ranks of the test inputs of some tasks."""
        return [rank for task, of_task in self.ranks.items() if chosen(task) for rank in of_task]


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
        steps=evaluated_step(folder) + job.steps_before(),
        cpu_seconds=job.cpu_seconds(),
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


STUDENT = {
    **{1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228},
    **{12: 2.179, 15: 2.131, 20: 2.086, 30: 2.042, 60: 2.000},
}
"""The 97.5 % quantile of Student's t by degrees of freedom."""


def student(freedom: int) -> float:
    """Returns the 97.5 % quantile of Student's t, of the next smaller degrees of freedom in `STUDENT`."""
    return STUDENT[max(known for known in STUDENT if known <= freedom)]


class SmallestDifference(NamedTuple):
    """How large a difference of two arms' pass@k must be to be more than chance.

    of_seeds: half of the 95 % interval of a difference of two means over seeds, by the pooled variance within the
    arms and Student's t; None with one seed.  freedom: its degrees of freedom.
    of_outputs: half of the 95 % interval from the drawing of the test outputs: their differences, averaged over seeds,
    vary by so much around the mean; at least one output.  outputs: their number.
    """

    of_seeds: float | None
    freedom: int
    of_outputs: float
    outputs: int

    @property
    def value(self) -> float:
        """The larger one."""
        return max(self.of_seeds or 0.0, self.of_outputs)


def smallest_difference(
    outcomes: Mapping[str, Sequence[Outcome]], k: int, chosen: Callable[[str], bool] = lambda _: True
) -> SmallestDifference:
    """Returns from which difference on two arms differ by more than chance, on the test inputs of some tasks."""
    groups = [[outcome.solved(k, chosen) for outcome in found] for found in outcomes.values() if len(found) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    of_seeds = None
    if freedom:
        variance = sum(statistics.variance(group) * (len(group) - 1) for group in groups) / freedom
        of_seeds = student(freedom) * math.sqrt(2 * variance / min(map(len, groups)))
    solved = [
        np.mean([[0 < rank <= k for rank in outcome.ranks_of(chosen)] for outcome in found], axis=0)
        for found in outcomes.values()
    ]
    count = len(solved[0])
    varies = [float(np.var(other - solved[0])) for other in solved[1:]]
    of_outputs = max(1 / count, 1.96 * math.sqrt(statistics.mean(varies) / count) if varies else 0.0)
    return SmallestDifference(of_seeds, freedom, of_outputs, count)


def summarise(
    outcomes: Mapping[str, Sequence[Outcome]], chosen: Callable[[str], bool] = lambda _: True
) -> dict[str, Any]:
    """Returns mean and range of every witness by arm, and each arm's difference from the first.

    pass@k and the mean reciprocal rank are of the chosen tasks; the losses and training exactness are of all.
    """
    first = next(iter(outcomes))
    found: dict[str, Any] = {}
    for arm, runs in outcomes.items():
        witnesses: dict[str, list[float]] = {f"pass@{k}": [run.solved(k, chosen) for run in runs] for k in KS}
        witnesses["training exactness"] = [run.train_exact for run in runs]
        witnesses["training loss"] = [run.loss for run in runs]
        witnesses["mean reciprocal rank"] = [run.mean_reciprocal_rank(chosen) for run in runs]
        known = [run.held_out_loss for run in runs if run.held_out_loss is not None]
        if len(known) == len(runs):
            witnesses["held-out loss"] = known
        timed = [run.cpu_seconds for run in runs if run.cpu_seconds is not None]
        if timed:
            witnesses["CPU seconds"] = timed
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
