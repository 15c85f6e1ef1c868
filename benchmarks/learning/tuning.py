"""Chooses the rate of each arm, on tasks whose results are not reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.learning.comparisons import Comparison
from benchmarks.learning.results import Outcome, outcome_of
from benchmarks.learning.runs import in_order, job_of, run_all
from benchmarks.learning.task_sets import DataSets, half_of


def tune(
    root: Path, comparison: Comparison, data: Mapping[str, DataSets], side_by_side: int
) -> tuple[Comparison, dict[str, Any]]:
    """Tries the rates of each arm once, with seed 0; returns the comparison with the best ones, and what was found.

    In the form `held_out` the best has the highest pass@2 on half 0 of the tasks; training exactness decides between
    equals.  The run of the best rate is then the first of its arm.  In the form `new_tasks`, whose data here have
    other new tasks than those of the results, the best has the lowest held-out loss, or the highest training
    exactness on the new tasks if an evaluation does not say that loss.

    Args:
        data: by arm.
    """
    jobs = {
        arm: [
            job_of(root, comparison, arm, (*settings, rate), data[arm], 0, comparison.steps)
            for rate in comparison.tuned[arm]
        ]
        for arm, settings in comparison.arms.items()
    }
    run_all(in_order(jobs), side_by_side)
    outcomes = {
        arm: {rate: outcome_of(job) for rate, job in zip(comparison.tuned[arm], made, strict=True)}
        for arm, made in jobs.items()
    }
    every = [outcome for by_rate in outcomes.values() for outcome in by_rate.values()]
    has_loss = all(outcome.held_out_loss is not None for outcome in every)
    found: dict[str, Any] = {}
    arms = {}
    for arm, by_rate in outcomes.items():
        found[arm] = {rate: _witnesses(outcome, comparison.form, has_loss) for rate, outcome in by_rate.items()}
        signs = [-1 if name == "held-out loss" else 1 for name in next(iter(found[arm].values()))]
        best = max(
            found[arm],
            key=lambda rate: [sign * value for sign, value in zip(signs, found[arm][rate].values(), strict=True)],
        )
        arms[arm] = (*comparison.arms[arm], best)
    return replace(comparison, arms=arms), found


def _witnesses(outcome: Outcome, form: str, has_loss: bool) -> dict[str, float]:
    """Returns what decides, the most important first."""
    exact = {"training exactness": outcome.train_exact}
    if form == "held_out":
        return {"pass@2, half 0": outcome.solved(2, lambda task: half_of(task) == 0)} | exact
    if has_loss and outcome.held_out_loss is not None:
        return {"held-out loss": outcome.held_out_loss}
    return exact
