"""Compares recipes by what they learn:

    python -m benchmarks.learning muon --folder runs/learning [--seeds 3] [--jobs 2] [--steps N] [--time]
    python -m benchmarks.learning mine --arm "published:" --arm "muon:optimizer=muon lr=2e-3" --task-set decision

The arms of a named comparison, or of your own, are trained at equal steps; with --time also for the CPU time of the
first arm.  In the form new_tasks, `pretrain:` or `finetune:` before a setting sets it for that stage alone.  Runs that
are there are not made again, and one that was cut off goes on.  A table is printed, and one JSON file is written;
`python -m benchmarks.learning.page` puts all of them into docs/learning.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.learning.boards import board_outcome_of, boards_as_json
from benchmarks.learning.comparisons import COMPARISONS, Comparison
from benchmarks.learning.page import RESULTS, format_table
from benchmarks.learning.results import as_json, from_json, outcome_of, smallest_difference, summarise
from benchmarks.learning.runs import Job, in_order, jobs_of, jobs_of_equal_time, run_all
from benchmarks.learning.task_sets import REPORTED, TASK_SETS, TUNING, DataSets, Generated, build, is_reported
from benchmarks.learning.tuning import tune
from benchmarks.run import hardware
from utils.cli import command
from utils.files import write_atomically


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
    parser.add_argument("--generated", type=Path, help="folder of generated pairs, for the arms that take some")
    parser.add_argument("--out", type=Path, help="the JSON file; default: in benchmarks/results/learning/")
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


def data_of(
    folder: Path, comparison: Comparison, fold: int = REPORTED, generated: Path | None = None
) -> dict[str, DataSets]:
    """Builds the data sets of the arms, and returns them by arm.

    Args:
        generated: where the generated pairs are, for the arms that take some.
    """
    if comparison.generated_of and generated is None:
        sys.exit("error: this comparison has arms with generated pairs: name their folder by --generated")
    return {
        arm: build(
            folder / "data",
            comparison.task_set,
            comparison.form,
            comparison.augmentations_of.get(arm, comparison.augmentations),
            fold,
            Generated(generated, weight) if generated and (weight := comparison.generated_of.get(arm)) else None,
        )
        for arm in comparison.arms
    }


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Makes the runs that are not there, and returns the report."""
    comparison = comparison_of(given)
    boards = comparison.form == "boards"
    if boards and (given.time or comparison.tuned):
        sys.exit("error: boards are compared by the time to a target: leave out --time and rates")
    root = given.folder / given.name
    found: dict[str, Any] = {}
    data = data_of(given.folder, comparison, generated=given.generated)
    if comparison.tuned:
        others = data if comparison.form == "held_out" else data_of(given.folder, comparison, TUNING, given.generated)
        comparison, found["tuning"] = tune(root, comparison, others, given.jobs)
    jobs = {"equal steps": jobs_of(root, comparison, data, range(given.seeds))}
    run_all(in_order(jobs["equal steps"]), given.jobs)
    if given.time:
        jobs["equal time"] = jobs_of_equal_time(root, comparison, jobs["equal steps"])
        run_all(in_order(jobs["equal time"]), given.jobs)
    report = {
        **{"name": given.name, "task_set": comparison.task_set, "form": comparison.form, "steps": comparison.steps},
        **{"augmentations": comparison.augmentations, "common": comparison.common, "arms": comparison.arms},
        **({"augmentations_of": comparison.augmentations_of} if comparison.augmentations_of else {}),
        **({"generated_of": comparison.generated_of} if comparison.generated_of else {}),
        **({"target": comparison.target} if boards else {}),
        **hardware(torch.device("cpu")),
        **found,
        "outcomes": {budget: _read(made, boards) for budget, made in jobs.items()},
    }
    if not boards:
        report["summary"] = {
            budget: _summary(runs, comparison.form, "tuning" in found) for budget, runs in report["outcomes"].items()
        }
    return report


def _read(jobs: dict[str, list[Job]], boards: bool) -> dict[str, list[dict[str, Any]]]:
    if boards:
        return boards_as_json({arm: [board_outcome_of(job) for job in made] for arm, made in jobs.items()})
    return as_json({arm: [outcome_of(job) for job in made] for arm, made in jobs.items()})


def _summary(runs: dict[str, list[dict[str, Any]]], form: str, tuned: bool) -> dict[str, Any]:
    """Returns the witnesses of each arm, and how large a difference must be, on the reported tasks."""
    outcomes = from_json(runs)

    def chosen(task: str) -> bool:
        return is_reported(task, form, tuned)

    smallest = smallest_difference(outcomes, 2, chosen)
    return {
        "arms": summarise(outcomes, chosen),
        "smallest difference of pass@2": {"value": smallest.value, **smallest._asdict()},
    }


@command
def main() -> None:
    given = parse()
    report = compare(given)
    name = "".join(c if c.isalnum() else "_" for c in given.name)
    parts = (name, report["task_set"], report["form"], report["augmentations"], report["steps"])
    out = given.out or RESULTS / f"{'-'.join(map(str, parts))}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, json.dumps(report, indent=1) + "\n")
    print(format_table(report))
    print(f"written: {out}")


if __name__ == "__main__":
    main()
