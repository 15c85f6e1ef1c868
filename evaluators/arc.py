"""The ARC evaluation: saved predictions -> votes -> submissions and, where the solutions are known, scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset.storage import open_catalog, open_test_tasks
from evaluators import scores, submission
from evaluators.predictions import Predictions
from evaluators.voting import count_votes
from utils.files import write_atomically

KAGGLE_ATTEMPTS = 2


def evaluate(
    predictions: Predictions,
    dataset_dir: str | Path,
    out_dir: Path,
    conditions: Mapping[str, Any] | None = None,
    attempts: int = 10,
    ranking: str = "votes",
) -> dict[str, Any]:
    """Writes `predictions.npz`, `submission.json` (`attempts` per input), `submission_kaggle.json` (2) and
    `scores.json` into `out_dir`; returns what the last holds.

    Scores are absent where the data set has no solutions.

    Args:
        conditions: what the scores depend on, written beside them.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    predictions.save(out_dir / "predictions.npz")
    test_tasks = open_test_tasks(dataset_dir)
    votes = count_votes(predictions, open_catalog(dataset_dir), ranking)
    for name, k in (("submission.json", attempts), ("submission_kaggle.json", KAGGLE_ATTEMPTS)):
        built = submission.build(votes, test_tasks, k)
        submission.validate(built, test_tasks, k)
        submission.write(built, out_dir / name)
    result: dict[str, Any] = {
        "ARC/tasks": len(test_tasks),
        "ARC/test_inputs": sum(len(task["test"]) for task in test_tasks.values()),
        "ARC/predictions": len(predictions),
        "ARC/unanswered_inputs": len(submission.unanswered(votes, test_tasks)),
    }
    known = scores.pass_at_k(votes, test_tasks)
    if known is not None:
        result |= known | {"ARC/copy_input": scores.copy_baseline(test_tasks)}
    described = result | {"conditions": dict(conditions or {})}
    write_atomically(out_dir / scores.SCORES, json.dumps(described, indent=1) + "\n")
    return result


def table(metrics: dict[str, Any], folder: Path) -> str:
    """The scores as people read them."""
    lines = [
        f"{metrics['ARC/tasks']} tasks, {metrics['ARC/test_inputs']} test inputs, "
        f"{metrics['ARC/predictions']} predictions"
        + (f", {n} inputs without any" if (n := metrics["ARC/unanswered_inputs"]) else "")
    ]
    if "ARC/pass@1" in metrics:
        lines.append("          " + "".join(f"pass@{k:<7}" for k in scores.KS))
        by_task = "".join(f"{metrics[f'ARC/pass@{k}']:<12.1%}" for k in scores.KS)
        by_input = "".join(f"{metrics[f'ARC/pass@{k}_inputs']:<12.1%}" for k in scores.KS)
        lines += [f"tasks     {by_task}", f"inputs    {by_input}"]
        lines.append(f"copying the input would solve {metrics['ARC/copy_input']:.1%} of the inputs")
    else:
        lines.append("no solutions known: no scores")
    lines.append(f"in {folder}: submission.json, submission_kaggle.json, predictions.npz, scores.json")
    return "\n".join(lines)
