"""The evaluation of puzzles with one right answer (Sudoku, mazes): the share of test examples that are right whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataset.storage import Split
from evaluators.inference.predictions import Predictions
from evaluators.scores import SCORES
from utils.files import write_atomically


def evaluate(
    predictions: Predictions,
    split: Split,
    out_dir: Path,
    conditions: Mapping[str, Any] | None = None,
    examples: np.ndarray | None = None,
) -> dict[str, Any]:
    """Writes `predictions.npz` and `scores.json` into `out_dir`; returns what the latter holds.

    `exact_accuracy` and `accuracy` are over test examples: all of its labelled tokens right, and the share of them.
    `steps_per_example` are the ACT steps behind an answer; `q_halt_accuracy` is how often the halting logit's sign
    agrees with being right.

    Args:
        predictions: of some examples of `split`, in order.
        examples: int64 [N], which ones; None for all.
        conditions: what the scores depend on, written beside them.

    Raises:
        ValueError: if no example of the split has labels.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    predictions.save(out_dir / "predictions.npz")
    examples = np.arange(split.num_examples) if examples is None else examples
    assert len(predictions) == len(examples), (len(predictions), len(examples))
    labels = split.read(examples)[1]
    ignore = split.metadata.ignore_label_id
    labelled = np.ones(labels.shape, dtype=bool) if ignore is None else labels != ignore
    right = (predictions.tokens == labels) & labelled
    counted = labelled.any(1)
    if not counted.any():
        raise ValueError("no example of the test split has labels: there is nothing to score")
    exact = right.sum(1) == labelled.sum(1)
    result = {
        "examples": int(counted.sum()),
        "exact_accuracy": float(exact[counted].mean()),
        "accuracy": float((right.sum(1)[counted] / labelled.sum(1)[counted]).mean()),
        "steps_per_example": float(predictions.steps.mean()),
        "q_halt_accuracy": float(((predictions.q_halt >= 0) == exact)[counted].mean()),
    }
    result = {f"exact/{name}": value for name, value in result.items()}
    described = result | {"conditions": dict(conditions or {})}
    write_atomically(out_dir / SCORES, json.dumps(described, indent=1) + "\n")
    return result


def table(metrics: dict[str, Any], folder: Path) -> str:
    """The scores as people read them."""
    return (
        f"{metrics['exact/examples']:,} test examples: {metrics['exact/exact_accuracy']:.2%} right whole, "
        f"{metrics['exact/accuracy']:.2%} of tokens, "
        f"after {metrics['exact/steps_per_example']:.1f} ACT steps on average; halting agrees with being right in "
        f"{metrics['exact/q_halt_accuracy']:.2%}\nin {folder}: predictions.npz, scores.json"
    )
