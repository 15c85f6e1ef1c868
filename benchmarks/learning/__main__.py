"""Compares recipes by what they learn:

    python -m benchmarks.learning muon --folder runs/learning [--seeds 3] [--jobs 2] [--steps N] [--time]
    python -m benchmarks.learning mine --arm "published:" --arm "muon:optimizer=muon lr=2e-3" --task-set decision

The arms of a named comparison, or of your own, are trained at equal steps; with --time also for the time of the first
arm.  Runs that are there are not made again, and one that was cut off goes on.  A table is printed, and one JSON file
is written; `python -m benchmarks.learning.page` puts all of them into docs/learning.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.learning.comparisons import COMMON, COMPARISONS, Comparison
from benchmarks.learning.page import format_table
from benchmarks.learning.results import Outcome, as_json, outcome_of
from benchmarks.learning.runs import Job, jobs_of, jobs_of_equal_time, run_all
from benchmarks.learning.task_sets import TASK_SETS, DataSets, build, half_of
from benchmarks.run import hardware


def tune(root: Path, comparison: Comparison, data: DataSets, side_by_side: int) -> tuple[Comparison, dict[str, Any]]:
    """Tries the rates of each arm once, with seed 0; returns the comparison with the best ones, and what was found.

    The best has the highest pass@2 on half of the tasks; training exactness decides between equals.
    """
    tried = {
        arm: {
            rate: Job(root / f"tune-{arm}-{rate}".replace(" ", "-"), data, (*settings, rate), 0, comparison.steps)
            for rate in comparison.tuned.get(arm, ())
        }
        for arm, settings in comparison.arms.items()
    }
    run_all([job for jobs in tried.values() for job in jobs.values()], side_by_side)
    found: dict[str, Any] = {}
    arms = {}
    for arm, jobs in tried.items():
        outcomes = {rate: outcome_of(job) for rate, job in jobs.items()}
        found[arm] = {
            rate: {"pass@2, half 0": outcome.solved(2, lambda task: half_of(task) == 0), "exact": outcome.train_exact}
            for rate, outcome in outcomes.items()
        }
        best = max(found[arm], key=lambda rate: tuple(found[arm][rate].values()), default=None)
        arms[arm] = (*comparison.arms[arm], *([best] if best else []))
    return replace(comparison, arms=arms), found


def parse_arm(text: str) -> tuple[str, tuple[str, ...]]:
    name, colon, settings = text.partition(":")
    if not colon or not name:
        sys.exit(f"error: --arm {text!r} has no name: write --arm 'NAME:SETTING=VALUE ..'")
    return name, tuple(settings.split())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help=f"one of {', '.join(COMPARISONS)}; or a name of your own with --arm")
    parser.add_argument("--folder", type=Path, default=Path("runs/learning"), help="where data and runs go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, each of one thread")
    parser.add_argument("--steps", type=int, help="optimizer steps of a run")
    parser.add_argument("--augmentations", type=int, help="of each task")
    parser.add_argument("--task-set", choices=list(TASK_SETS))
    parser.add_argument("--form", choices=["held_out", "new_tasks"])
    parser.add_argument("--arm", action="append", default=[], help="'NAME:SETTING=VALUE ..'; the first is the baseline")
    parser.add_argument("--time", action="store_true", help="also compare at the time of the first arm")
    parser.add_argument("--no-tuning", action="store_true", help="take the arms as they are")
    parser.add_argument("--out", type=Path, help="the JSON file; default: FOLDER/NAME.json")
    return parser.parse_args()


def comparison_of(given: argparse.Namespace) -> Comparison:
    """Returns the comparison that the command line describes."""
    if given.arm:
        comparison = Comparison("screening", "held_out", dict(map(parse_arm, given.arm)))
    elif given.name in COMPARISONS:
        comparison = COMPARISONS[given.name]
    else:
        sys.exit(f"error: there is no comparison {given.name!r}: take one of {', '.join(COMPARISONS)}, or give --arm")
    asked = {
        "steps": given.steps,
        "augmentations": given.augmentations,
        "task_set": given.task_set,
        "form": given.form,
        "tuned": {} if given.no_tuning else None,
    }
    return replace(comparison, **{name: value for name, value in asked.items() if value is not None})


def main() -> None:
    given = parse()
    comparison = comparison_of(given)
    task_set = TASK_SETS[comparison.task_set]
    data = build(given.folder / "data", task_set, comparison.form, comparison.augmentations)
    root = (
        given.folder / f"{given.name}-{task_set.name}-{comparison.form}-{comparison.augmentations}-{comparison.steps}"
    )
    found: dict[str, Any] = {}
    if comparison.tuned:
        comparison, found["tuning"] = tune(root, comparison, data, given.jobs)
    jobs = jobs_of(root, comparison, data, range(given.seeds))
    run_all([job for made in jobs.values() for job in made], given.jobs)
    outcomes: dict[str, dict[str, list[Outcome]]] = {"equal steps": _read(jobs)}
    if given.time:
        timed = jobs_of_equal_time(root, jobs)
        run_all([job for made in timed.values() for job in made], given.jobs)
        outcomes["equal time"] = _read(timed)
    report = {
        **{"name": given.name, "task_set": task_set.name, "form": comparison.form},
        **{"augmentations": comparison.augmentations, "common": COMMON, "arms": comparison.arms},
        **hardware(torch.device("cpu")),
        **found,
        "outcomes": {budget: as_json(runs) for budget, runs in outcomes.items()},
    }
    out = given.out or given.folder / f"{root.name}.json"
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(format_table(report))
    print(f"written: {out}")


def _read(jobs: dict[str, list[Job]]) -> dict[str, list[Outcome]]:
    return {arm: [outcome_of(job) for job in made] for arm, made in jobs.items()}


if __name__ == "__main__":
    main()
