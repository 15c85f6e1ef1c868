"""Sets two runs side by side, task by task: which tasks each of them solves alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluators.report.recipe import list_differences, read_settings
from evaluators.report.saved_run import read_saved_run
from utils.errors import DataError, SettingError

Described = Mapping[str, Any]
"""One item of `describe_tasks`."""


def describe_comparison(first: Path, second: Path, data: Path | None = None) -> tuple[str, dict[str, Any]]:
    """Returns title and content (see `render_page`) of the page of two runs' latest evaluations.

    A task is compared if both have evaluated it and its grids are the same; an output that only one of them knows
    counts for both.  The answers after each ACT step are left to the page of each run.

    Args:
        data: the data set of both, if it is not where they found theirs.

    Raises:
        SettingError: if both are one folder.
        DataError: if a run has no evaluation, or no task is in both.
    """
    if first.resolve() == second.resolve():
        raise SettingError(f"{first} is named twice: name two runs")
    runs, tasks_of = [], []
    for run, name in zip((first, second), _name_apart(first, second), strict=True):
        title, content = read_saved_run(run, data)
        tasks_of.append({task["id"]: task for task in content["tasks"]})
        runs.append({"name": name, "title": title, "recipe": content["recipe"], "attempts": _attempts_of(content)})
    joined = [
        both
        for name, task in tasks_of[0].items()
        if name in tasks_of[1] and (both := _join(task, tasks_of[1][name])) is not None
    ]
    if not joined:
        raise DataError(f"{first} and {second} have evaluated no task that is the same: name runs on one data set")
    for described, tasks in zip(runs, tasks_of, strict=True):
        described["left_out"] = len(tasks) - len(joined)
    return " and ".join(run["name"] for run in runs), {
        "runs": runs,
        "differences": list_differences(read_settings(first), read_settings(second)),
        "tasks": joined,
    }


def _attempts_of(content: Mapping[str, Any]) -> int:
    return int(content["conditions"]["attempts"])


def _join(first: Described, second: Described) -> dict[str, Any] | None:
    """Returns a task with what both made of each test input; None if the two are not the same task."""
    tests = [_join_test(*both) for both in zip(first["test"], second["test"], strict=False)]
    is_same = first["train"] == second["train"] and len(first["test"]) == len(second["test"])
    if not is_same or any(test is None for test in tests):
        return None
    return {"id": first["id"], "train": first["train"], "test": tests}


def _join_test(first: Described, second: Described) -> dict[str, Any] | None:
    truths = {test["truth"] for test in (first, second)} - {None}
    if first["input"] != second["input"] or len(truths) > 1:
        return None
    truth = next(iter(truths), None)
    return {"input": first["input"], "truth": truth, "runs": [_answer_of(test, truth) for test in (first, second)]}


def _answer_of(test: Described, truth: str | None) -> dict[str, Any]:
    answer = {name: test[name] for name in ("rank", "attempts", "candidates", "votes", "summary")}
    if truth is not None and test["truth"] is None:  # the other run knows it
        ranks = [rank for rank, attempt in enumerate(test["attempts"], start=1) if attempt["grid"] == truth]
        answer["rank"] = ranks[0] if ranks else None
    return {**answer, "steps": []}


def _name_apart(first: Path, second: Path) -> tuple[str, str]:
    """Returns the shortest ends of two paths that differ, such as `a/finetune` and `b/finetune`."""
    parts = [path.resolve().parts for path in (first, second)]
    for count in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(of_path[-count:]) for of_path in parts]
        if ends[0] != ends[1]:
            return ends[0], ends[1]
    return str(first), str(second)
