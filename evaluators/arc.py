"""The ARC evaluation: saved predictions -> votes -> submissions and, where the solutions are known, scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.storage import PuzzleCatalog
from evaluators import scores, submission
from evaluators.inference.predictions import Predictions
from evaluators.scores import TestTasks
from evaluators.voting import Votes, count_votes
from utils.files import write_atomically

KAGGLE_ATTEMPTS = 2
SUBMISSION, KAGGLE_SUBMISSION = "submission.json", "submission_kaggle.json"
PREDICTIONS, TRACE = "predictions.npz", "trace.npz"


def write_submissions(votes: Votes, test_tasks: TestTasks, folder: Path, attempts: int) -> None:
    """Replaces `submission.json` (`attempts` per test input) and `submission_kaggle.json` (2) in `folder`."""
    for name, k in ((SUBMISSION, attempts), (KAGGLE_SUBMISSION, KAGGLE_ATTEMPTS)):
        built = submission.build(votes, test_tasks, k)
        submission.validate(built, test_tasks, k)
        submission.write(built, folder / name)


def evaluate(
    parts: Sequence[Predictions],
    catalog: PuzzleCatalog,
    test_tasks: TestTasks,
    out_dir: Path,
    conditions: Mapping[str, Any] | None = None,
    attempts: int = 10,
    ranking: str = "votes",
    repeated: int | None = None,
) -> dict[str, Any]:
    """Writes submissions and `scores.json` into `out_dir`; returns the scores.

    Scores are absent where a solution is not known.

    Args:
        parts: the predictions of one checkpoint, or of several whose votes count together; each row is a vote.
        conditions: what the scores depend on, written beside them.
        repeated: how many answers were made again on a larger canvas, where there are several.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    predictions = Predictions.joined(parts)
    votes = count_votes(predictions, catalog, ranking)
    write_submissions(votes, test_tasks, out_dir, attempts)
    per_input = [sum(candidate.votes for candidate in candidates) for candidates in votes.values()]
    result: dict[str, Any] = {
        "ARC/tasks": len(test_tasks),
        "ARC/test_inputs": sum(len(task["test"]) for task in test_tasks.values()),
        "ARC/predictions": len(predictions),
        "ARC/checkpoints": len(parts),
        "ARC/steps_per_prediction": float(predictions.steps.mean()) if len(predictions) else 0.0,
        "ARC/votes_per_input": float(np.mean(per_input)) if per_input else 0.0,
        "ARC/unanswered_inputs": len(submission.unanswered(votes, test_tasks)),
    }
    if repeated is not None:
        result["ARC/repeated_on_larger_canvas"] = repeated
    known = scores.pass_at_k(votes, test_tasks)
    if known is not None:
        result |= known | {"ARC/copy_input": scores.copy_baseline(test_tasks)}
    described = result | {"conditions": dict(conditions or {})}
    write_atomically(out_dir / scores.SCORES, json.dumps(described, indent=1) + "\n")
    return result


def counted(number: int, what: str) -> str:
    """3 votes, 1 vote."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def table(metrics: dict[str, Any], folder: Path) -> str:
    """The scores as people read them."""
    lines = [
        f"{metrics['ARC/tasks']} tasks, {metrics['ARC/test_inputs']} test inputs, "
        f"{metrics['ARC/predictions']:,} predictions of {counted(metrics['ARC/checkpoints'], 'checkpoint')} after "
        f"{metrics['ARC/steps_per_prediction']:.1f} ACT steps on average, {metrics['ARC/votes_per_input']:.1f} votes "
        "per input" + (f", {counted(n, 'input')} without any" if (n := metrics["ARC/unanswered_inputs"]) else "")
    ]
    if "ARC/pass@1" in metrics:
        lines.append("          " + "".join(f"pass@{k:<7}" for k in scores.KS))
        for name, suffix in (("tasks", ""), ("inputs", "_inputs")):
            lines.append(f"{name:<10}" + "".join(f"{metrics[f'ARC/pass@{k}{suffix}']:<12.1%}" for k in scores.KS))
            between = [metrics[f"ARC/pass@{k}{suffix}_95"] for k in scores.KS]
            lines.append(
                f"{'  95 %':<10}" + "".join(f"{f'{100 * low:.0f} to {100 * high:.0f}':<12}" for low, high in between)
            )
        lines.append(f"copying the input would solve {metrics['ARC/copy_input']:.1%} of the inputs")
    else:
        lines.append("no solutions known: no scores")
    files = (SUBMISSION, KAGGLE_SUBMISSION, PREDICTIONS, scores.SCORES)
    lines.append(f"in {folder}: {', '.join(name for name in files if (folder / name).exists())}")
    return "\n".join(lines)
