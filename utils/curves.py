"""Which metrics of a run's log are curves, and their points: what the report's page and `utils.plot` draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CURVES = {
    "lm_loss": "loss per token",
    "accuracy": "tokens right",
    "exact_accuracy": "examples right whole",
    "q_halt_accuracy": "halting agrees with being right",
    "steps": "ACT steps per example",
    "ARC/pass@1_inputs": "pass@1, of test inputs",
    "ARC/pass@2_inputs": "pass@2, of test inputs",
    "ARC/pass@10_inputs": "pass@10, of test inputs",
    "exact/exact_accuracy": "test examples right whole",
    "lr": "learning rate",
    "examples_per_second": "example-steps per second",
}
"""Title of each metric that is drawn, in the order of the panels."""

MOST_POINTS = 400

Points = list[list[float]]
"""[step, value] in the order of the log."""


def curves(
    metrics: Sequence[Mapping[str, Any]], names: Iterable[str] = tuple(CURVES), most: int = MOST_POINTS
) -> dict[str, Points]:
    """Points of what a log holds under `names`, at most about `most` of each; a metric of fewer than two is no curve.

    Args:
        metrics: lines of a `metrics.jsonl`, as `runlog.read_metrics` gives them.
    """
    found: dict[str, Points] = {}
    for name in names:
        points = [
            [line["step"], float(f"{line[name]:.5g}")] for line in metrics if isinstance(line.get(name), int | float)
        ]
        if len(points) > 1:
            found[name] = thinned(points, most)
    return found


def thinned(points: Points, most: int) -> Points:
    """Every n-th point, and the last."""
    every = max(1, -(-len(points) // most))
    kept = points[::every]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
