"""Scores ARC tasks: predictions -> votes -> submissions, a page, and pass@k if the solutions are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dataset.storage import PuzzleCatalog, Split
from dataset.tasks import Task
from evaluators.inference.predictions import PREDICTIONS, Predictions, PredictionSnapshot
from evaluators.report.page import REPORT, render_page
from evaluators.report.run_content import describe_evaluation
from evaluators.scores import (
    ALL,
    KS,
    SCORES,
    copy_baseline,
    pass_at_k,
    published_line,
    statistics_of,
    write_scores,
)
from evaluators.submission import KAGGLE_SUBMISSION, SUBMISSION, format_submissions, list_unanswered
from evaluators.voting import Votes, count_votes, weights_of
from utils.files import write_atomically
from utils.progress import count_of


class ArcScorer:
    """Counts the votes for the test inputs of some tasks.

    Args:
        attempts: per test input in `submission.json`.
        ranking: one of `evaluators.voting.RANKINGS`.
        split: the test split, for the published statistics; None leaves them out.
    """

    keeps_trace = True

    def __init__(
        self,
        catalog: PuzzleCatalog,
        tasks: Mapping[str, Task],
        attempts: int = 10,
        ranking: str = "votes",
        split: Split | None = None,
    ) -> None:
        self.catalog, self.tasks, self.attempts, self.ranking, self.split = catalog, tasks, attempts, ranking, split

    def score(
        self,
        snapshot: PredictionSnapshot,
        conditions: Mapping[str, Any] | None = None,
        earlier: Sequence[Predictions] = (),
        weights: Sequence[float] | None = None,
    ) -> ArcResult:
        """Returns the votes, and what follows from them.

        Args:
            conditions: what the scores depend on.
            earlier: predictions of other checkpoints whose votes count too.
            weights: what a vote of each of `earlier` counts, beside 1 for a vote of the snapshot; None: 1 each.
        """
        parts = [*earlier, snapshot.predictions]
        predictions = Predictions.joined(parts)
        weights = [*(weights or [1.0] * len(earlier)), 1.0]
        return ArcResult(
            tasks=self.tasks,
            catalog=self.catalog,
            votes=count_votes(predictions, self.catalog, self.ranking, weights_of(parts, weights)),
            attempts=self.attempts,
            snapshot=snapshot,
            conditions=dict(conditions or {}),
            checkpoints=1 + len(earlier),
            weights=tuple(weights),
            num_predictions=len(predictions),
            mean_steps=float(predictions.steps.mean()) if len(predictions) else 0.0,
            split=self.split,
        )


@dataclass(frozen=True)
class ArcResult:
    """The votes of an evaluation, for its submissions, its scores and its page.

    attempts: per test input in `submission.json`.
    checkpoints: whose votes count.  weights: what a vote of each counts, in their order.
    num_predictions, mean_steps: the number of their predictions, and the mean number of ACT steps behind one.
    """

    tasks: Mapping[str, Task]
    catalog: PuzzleCatalog
    votes: Votes
    attempts: int
    snapshot: PredictionSnapshot
    conditions: dict[str, Any]
    checkpoints: int
    num_predictions: int
    mean_steps: float
    weights: tuple[float, ...] = (1.0,)
    split: Split | None = None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The scores by name; pass@k is absent if a solution is not known."""
        votes_per_input = [sum(candidate.votes for candidate in candidates) for candidates in self.votes.values()]
        metrics: dict[str, Any] = {
            "ARC/tasks": len(self.tasks),
            "ARC/test_inputs": sum(len(task.test) for task in self.tasks.values()),
            "ARC/predictions": self.num_predictions,
            "ARC/checkpoints": self.checkpoints,
            "ARC/steps_per_prediction": self.mean_steps,
            "ARC/votes_per_input": float(np.mean(votes_per_input)) if votes_per_input else 0.0,
            "ARC/unanswered_inputs": len(list_unanswered(self.votes, self.tasks)),
        }
        if self.snapshot.repeated is not None:
            metrics["ARC/repeated_on_larger_canvas"] = self.snapshot.repeated
        known = pass_at_k(self.votes, self.tasks)
        if known is not None:
            metrics |= known | {"ARC/copy_input": copy_baseline(self.tasks)}
        of_all = None if self.split is None else statistics_of(self.snapshot, self.split)
        return metrics | {f"{ALL}{name}": value for name, value in (of_all or {}).items()}

    @cached_property
    def submissions(self) -> dict[str, str]:
        """The text of each submission by the name of its file."""
        return format_submissions(self.votes, self.tasks, self.attempts)

    def write_submissions(self, folder: Path) -> None:
        """Replaces the submissions in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.submissions.items():
            write_atomically(folder / name, text)

    def write(self, folder: Path) -> None:
        """Writes the submissions, then `scores.json`."""
        self.write_submissions(folder)
        write_scores(folder, self.metrics, self.conditions)

    def write_page(self, run: Path) -> Path:
        """Replaces a run's page by that of this evaluation; returns its path.

        Its curves are those of the run's log, so the scores must be in the log first.
        """
        title, content = describe_evaluation(
            run=run,
            tasks=self.tasks,
            votes=self.votes,
            catalog=self.catalog,
            trace=self.snapshot.trace,
            attempts=self.attempts,
            scores=self.metrics,
            conditions=self.conditions,
        )
        write_atomically(run / REPORT, render_page(title, content))
        return run / REPORT

    def summary(self, folder: Path) -> str:
        """Returns the scores as people read them.

        Args:
            folder: where the evaluation is.
        """
        metrics = self.metrics
        checkpoints = count_of(metrics["ARC/checkpoints"], "checkpoint", "checkpoints")
        lines = [
            f"{metrics['ARC/tasks']} tasks, {metrics['ARC/test_inputs']} test inputs, "
            f"{metrics['ARC/predictions']:,} predictions of {checkpoints} "
            f"after {metrics['ARC/steps_per_prediction']:.1f} ACT steps on average, "
            f"{metrics['ARC/votes_per_input']:.1f} votes per input"
            + (f", {count_of(n, 'input', 'inputs')} without a vote" if (n := metrics["ARC/unanswered_inputs"]) else "")
        ]
        if set(self.weights) != {1.0}:
            shown = ", ".join(f"{weight:.3g}" for weight in self.weights)
            lines.append(f"a vote of the checkpoints counts {shown}, the last one being that of this evaluation")
        lines += _format_pass_at_k(metrics)
        if "ARC/pass@1" in metrics:
            lines.append(published_line(metrics))
        files = (SUBMISSION, KAGGLE_SUBMISSION, PREDICTIONS, SCORES)
        lines.append(f"in {folder}: {', '.join(name for name in files if (folder / name).exists())}")
        if self.snapshot.repeated is not None:
            lines.append(
                f"{self.snapshot.repeated} of {len(self.snapshot.predictions)} answers were made again on a larger "
                "canvas"
            )
        return "\n".join(lines)


def _format_pass_at_k(metrics: Mapping[str, Any]) -> list[str]:
    if "ARC/pass@1" not in metrics:
        return ["no solutions known: no scores"]
    lines = ["        " + "".join(f"{f'pass@{k}':>11}" for k in KS)]
    for name, suffix in (("tasks", ""), ("inputs", "_inputs")):
        lines.append(f"{name:<8}" + "".join(f"{metrics[f'ARC/pass@{k}{suffix}']:>11.1%}" for k in KS))
        intervals = [metrics[f"ARC/pass@{k}{suffix}_95"] for k in KS]
        lines.append(
            f"{'  95 %':<8}" + "".join(f"{f'{100 * low:.0f} to {100 * high:.0f}':>11}" for low, high in intervals)
        )
    return [*lines, f"copying the input would solve {metrics['ARC/copy_input']:.1%} of the inputs"]
