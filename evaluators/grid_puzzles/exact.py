"""Scores puzzles with one right answer (Sudoku, mazes): the fraction of test examples that are completely right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dataset.storage import Split
from evaluators.grid_puzzles.answers import GridAnswers
from evaluators.grid_puzzles.kinds import GridKind, identify_kind
from evaluators.inference.predictions import PREDICTIONS, Predictions, PredictionSnapshot
from evaluators.scores import ALL, SCORES, published_line, statistics_of, write_scores

ANSWERS = "answers.csv"
"""The predictions as text, one row per puzzle."""


class ExactScorer:
    """Compares predictions with the labels of a test split.

    Args:
        sources: of the data set, if it records them: they tell what kind of puzzle it has.
    """

    keeps_trace = False

    def __init__(self, split: Split, sources: Sequence[str] = ()) -> None:
        metadata = split.metadata
        self._split, self._kind = split, identify_kind(metadata.vocab_size, metadata.seq_len, sources)

    def score(
        self,
        snapshot: PredictionSnapshot,
        conditions: Mapping[str, Any] | None = None,
        earlier: Sequence[Predictions] = (),
        weights: Sequence[float] | None = None,
    ) -> ExactResult:
        """Returns the result of some examples of the split, or of all.

        Args:
            conditions: what the scores depend on.
            earlier, weights: must be empty, since there are no votes to count together.
        """
        assert not earlier, "answers of several checkpoints are not counted together"
        return ExactResult(self._split, snapshot, dict(conditions or {}), self._kind)


@dataclass(frozen=True)
class ExactResult:
    """What was predicted of examples that have one right answer."""

    split: Split
    snapshot: PredictionSnapshot
    conditions: dict[str, Any]
    kind: GridKind | None = None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The scores.

        `exact_accuracy` is the fraction of test examples whose labelled tokens are all right; `accuracy` is the mean
        fraction of right ones.  `steps_per_example` are the ACT steps behind an answer.  `q_halt_accuracy` is how often
        the sign of the halting logit agrees with being right.  If no answer is known, only the examples are counted.
        """
        predictions, examples = self.snapshot.predictions, self._examples
        assert len(predictions) == len(examples), (len(predictions), len(examples))
        found = statistics_of(replace(self.snapshot, examples=examples), self.split)
        steps = {"exact/steps_per_example": float(predictions.steps.mean())}
        if found is None:
            return {"exact/examples": 0, "exact/predictions": len(predictions), **steps}
        return {
            "exact/examples": self._count_labelled(examples),
            **{f"exact/{name}": found[name] for name in ("exact_accuracy", "accuracy", "q_halt_accuracy")},
            **steps,
            **{f"{ALL}{name}": value for name, value in found.items()},
        }

    @property
    def _examples(self) -> np.ndarray:
        """The example of the split that each prediction answers, int64 [N]."""
        examples = self.snapshot.examples
        return np.arange(self.split.num_examples) if examples is None else examples

    @property
    def answers(self) -> GridAnswers | None:
        """The predictions as puzzles; None if every answer is known, or the split has another kind of puzzle."""
        if self.kind is None or not len(self._examples):
            return None
        questions, truths = self.split.read(self._examples)
        predictions = self.snapshot.predictions
        answers = GridAnswers(self.kind, questions, predictions.tokens, truths, predictions.q_halt, predictions.steps)
        return None if answers.is_known.all() else answers

    def _count_labelled(self, examples: np.ndarray) -> int:
        ignore = self.split.metadata.ignore_label_id
        labels = self.split.read(np.unique(examples))[1]
        return len(labels) if ignore is None else int((labels != ignore).any(1).sum())

    def write_submissions(self, folder: Path) -> None:
        """Writes nothing: these puzzles are not submitted."""

    def write(self, folder: Path) -> None:
        """Writes `scores.json`, and before it `answers.csv` if not every answer is known."""
        folder.mkdir(parents=True, exist_ok=True)
        if (answers := self.answers) is not None:
            answers.write_csv(folder / ANSWERS)
        write_scores(folder, self.metrics, self.conditions)

    def write_page(self, run: Path) -> Path | None:
        """Writes nothing, since the page shows ARC's grids and their candidates; returns None."""
        return None

    def summary(self, folder: Path) -> str:
        """Returns the scores as people read them.

        Args:
            folder: where the evaluation is.
        """
        metrics, answers = self.metrics, self.answers
        written = ", ".join([PREDICTIONS, SCORES, *([] if answers is None else [ANSWERS])])
        counted = "" if answers is None else f"{answers.count_kept()}\n"
        if not metrics["exact/examples"]:
            return (
                f"{metrics['exact/predictions']:,} test examples predicted, after "
                f"{metrics['exact/steps_per_example']:.1f} ACT steps on average; no answer is known, so there is no "
                f"score\n{counted}in {folder}: {written}"
            )
        return (
            f"{metrics['exact/examples']:,} test examples: {metrics['exact/exact_accuracy']:.2%} completely right, "
            f"{metrics['exact/accuracy']:.2%} of tokens, "
            f"after {metrics['exact/steps_per_example']:.1f} ACT steps on average; halting agrees with being right in "
            f"{metrics['exact/q_halt_accuracy']:.2%}\n{published_line(metrics)}\n{counted}in {folder}: {written}"
        )
