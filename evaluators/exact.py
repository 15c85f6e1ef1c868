"""Scores puzzles with one right answer (Sudoku, mazes): the fraction of test examples that are completely right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dataset.storage import Split
from evaluators.inference.predictions import PREDICTIONS, Predictions, PredictionSnapshot
from evaluators.scores import ALL, SCORES, published_line, statistics_of, write_scores
from utils.errors import DataError


class ExactScorer:
    """Compares predictions with the labels of a test split."""

    keeps_trace = False

    def __init__(self, split: Split) -> None:
        self._split = split

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
        return ExactResult(self._split, snapshot, dict(conditions or {}))


@dataclass(frozen=True)
class ExactResult:
    """What was predicted of examples that have one right answer."""

    split: Split
    snapshot: PredictionSnapshot
    conditions: dict[str, Any]

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The scores.

        `exact_accuracy` is the fraction of test examples whose labelled tokens are all right; `accuracy` is the mean
        fraction of right ones.  `steps_per_example` are the ACT steps behind an answer.  `q_halt_accuracy` is how often
        the sign of the halting logit agrees with being right.

        Raises:
            DataError: if no example has labels.
        """
        predictions, examples = self.snapshot.predictions, self.snapshot.examples
        if examples is None:
            examples = np.arange(self.split.num_examples)
        assert len(predictions) == len(examples), (len(predictions), len(examples))
        found = statistics_of(replace(self.snapshot, examples=examples), self.split)
        if found is None:
            raise DataError("no example of the test split has labels: there is nothing to score")
        return {
            "exact/examples": self._count_labelled(examples),
            **{f"exact/{name}": found[name] for name in ("exact_accuracy", "accuracy", "q_halt_accuracy")},
            "exact/steps_per_example": float(predictions.steps.mean()),
            **{f"{ALL}{name}": value for name, value in found.items()},
        }

    def _count_labelled(self, examples: np.ndarray) -> int:
        ignore = self.split.metadata.ignore_label_id
        labels = self.split.read(np.unique(examples))[1]
        return len(labels) if ignore is None else int((labels != ignore).any(1).sum())

    def write_submissions(self, folder: Path) -> None:
        """Writes nothing: these puzzles are not submitted."""

    def write(self, folder: Path) -> None:
        """Writes `scores.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_scores(folder, self.metrics, self.conditions)

    def write_page(self, run: Path) -> Path | None:
        """Writes nothing, since the page shows ARC's grids and their candidates; returns None."""
        return None

    def summary(self, folder: Path) -> str:
        """Returns the scores as people read them.

        Args:
            folder: where the evaluation is.
        """
        metrics = self.metrics
        return (
            f"{metrics['exact/examples']:,} test examples: {metrics['exact/exact_accuracy']:.2%} completely right, "
            f"{metrics['exact/accuracy']:.2%} of tokens, "
            f"after {metrics['exact/steps_per_example']:.1f} ACT steps on average; halting agrees with being right in "
            f"{metrics['exact/q_halt_accuracy']:.2%}\n{published_line(metrics)}\nin {folder}: {PREDICTIONS}, {SCORES}"
        )
