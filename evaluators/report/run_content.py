"""Describes a run's evaluation for its page: the same whether the run has just ended or its files are read later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset.storage import PuzzleCatalog
from dataset.tasks import Task
from evaluators.inference.predictions import Trace
from evaluators.report.recipe import describe_recipe
from evaluators.report.task_values import describe_tasks, describe_traces
from evaluators.voting import Votes
from utils.metrics_log import read_metrics
from utils.plot import select_curves


def describe_evaluation(
    run: Path,
    tasks: Mapping[str, Task],
    votes: Votes,
    catalog: PuzzleCatalog,
    trace: Trace | None,
    attempts: int,
    scores: Mapping[str, Any],
    conditions: Mapping[str, Any],
) -> tuple[str, dict[str, Any]]:
    """Returns title and content (see `render_page`) of the page of an evaluation.

    Args:
        run: the folder, whose log and settings are read where it has them.
        attempts: how many candidates of each test input are shown.
        conditions: what the scores depend on, with the `step`.
    """
    log = run / "metrics.jsonl"
    lines = read_metrics(log) if log.exists() else []
    step = conditions.get("step")
    content = {
        "tasks": describe_tasks(tasks, votes, describe_traces(trace, catalog), attempts),
        "scores": dict(scores),
        "conditions": dict(conditions),
        "recipe": describe_recipe(run, step if isinstance(step, int) else 0, lines),
        "curves": select_curves(lines),
    }
    return f"{run.name}, step {'?' if step is None else step}", content
