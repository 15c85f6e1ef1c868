"""Scores puzzles with one right answer (Sudoku, mazes): the fraction of test examples that are completely right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dataset.storage import Split
from evaluators.inference.predictions import PREDICTIONS, Predictions, PredictionSnapshot
from evaluators.scores import SCORES, write_scores
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
    ) -> ExactResult:
        """Returns the result of some examples of the split, or of all.

        Args:
            conditions: what the scores depend on.
            earlier: must be empty, since there are no votes to count together.
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
        examples = np.arange(self.split.num_examples) if examples is None else examples
        assert len(predictions) == len(examples), (len(predictions), len(examples))
        labels = self.split.read(examples)[1]
        ignore = self.split.metadata.ignore_label_id
        labelled = np.ones(labels.shape, dtype=bool) if ignore is None else labels != ignore
        right = (predictions.tokens == labels) & labelled
        has_labels = labelled.any(1)
        if not has_labels.any():
            raise DataError("no example of the test split has labels: there is nothing to score")
        is_exact = right.sum(1) == labelled.sum(1)
        return {
            "exact/examples": int(has_labels.sum()),
            "exact/exact_accuracy": float(is_exact[has_labels].mean()),
            "exact/accuracy": float((right.sum(1)[has_labels] / labelled.sum(1)[has_labels]).mean()),
            "exact/steps_per_example": float(predictions.steps.mean()),
            "exact/q_halt_accuracy": float(((predictions.q_halt >= 0) == is_exact)[has_labels].mean()),
        }

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
            f"{metrics['exact/q_halt_accuracy']:.2%}\nin {folder}: {PREDICTIONS}, {SCORES}"
        )
