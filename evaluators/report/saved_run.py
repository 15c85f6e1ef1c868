"""Reads a finished run's evaluation from its files, for a page or a picture that another process makes later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset.storage import open_catalog, open_test_tasks
from evaluators.inference.predictions import PREDICTIONS, TRACE, Predictions, Trace
from evaluators.report.recipe import read_settings
from evaluators.report.run_content import describe_evaluation
from evaluators.scores import ALL, SCORES, list_evaluations
from evaluators.voting import count_votes, weights_of
from utils.errors import DataError


def read_saved_run(run: Path, data: Path | None = None) -> tuple[str, dict[str, Any]]:
    """Returns title and content (see `render_page`) of the page of a run's latest evaluation.

    Args:
        data: its data set, if that is not where the run found it.

    Raises:
        DataError: if the folder has no evaluation, or the data set cannot be found.
    """
    folders = list_evaluations(run)
    if not folders:
        raise DataError(
            f"{run} has no finished evaluation: name the folder of a run of eval_arc_k10.py, or start its command again"
        )
    folder = folders[-1]
    scores, conditions = _read_scores(folder)
    data = data or Path(conditions.get("data_path") or "")
    catalog, tasks = open_catalog(data), open_test_tasks(data)
    chosen = _find_chosen(run, conditions) or list(tasks)
    parts = [run / name for name in conditions.get("pooled", [])] + [folder]
    predictions = [Predictions.load(part / PREDICTIONS) for part in parts]
    weights = [*(conditions.get("pool_weights") or [1.0] * (len(parts) - 1)), 1.0]
    votes = count_votes(
        Predictions.joined(predictions), catalog, conditions.get("ranking", "votes"), weights_of(predictions, weights)
    )
    return describe_evaluation(
        run=run,
        tasks={name: task for name, task in tasks.items() if name in chosen},
        votes=votes,
        catalog=catalog,
        trace=Trace.load(folder / TRACE) if (folder / TRACE).exists() else None,
        attempts=conditions["attempts"],
        scores=scores,
        conditions=conditions,
    )


def _find_chosen(run: Path, conditions: Mapping[str, Any]) -> list[str] | None:
    """Returns the tasks that were evaluated; None for all of the data set.

    Where rows belong to tasks, earlier versions wrote a fingerprint in the place of the setting.
    """
    chosen = conditions.get("tasks")
    return read_settings(run).get("tasks") if isinstance(chosen, str) else chosen


def _read_scores(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the scores of an evaluation, and the conditions that they depend on."""
    try:
        scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
        conditions = dict(scores.pop("conditions", {}))
        scores |= {f"{ALL}{name}": value for name, value in scores.pop("all", {}).items()}
        conditions["attempts"] = int(conditions.get("attempts", 10))
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f"{folder / SCORES} cannot be read ({error}): evaluate again") from None
    return scores, conditions
