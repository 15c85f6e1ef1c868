"""Divides the time of a run between fine-tuning, prediction and writing."""

from __future__ import annotations

import time
from dataclasses import dataclass

from utils.timers import Deadline


@dataclass(frozen=True)
class Shares:
    """When each part must have ended, as `time.monotonic()`.  training: None where there is no time for any."""

    training: float | None
    prediction: float


WRITING_SECONDS = 1.0
REPORTING_SECONDS = 1.0
"""For the submissions that are written while predictions are made."""

WRITING_SECONDS_PER_PREDICTION = 60e-6
CHECKPOINT_BYTES_PER_SECOND = 150e6
MOST_FOR_PREDICTION = 0.4
"""Of the time left, the most that prediction is given at the cost of fine-tuning, beyond its first round."""


def divide(
    budget: Deadline,
    *,
    predict_all: float,
    predict_first: float,
    start_up: float,
    submit: float,
    predictions: int,
    state_bytes: int,
) -> Shares:
    """Reserves what comes after fine-tuning, which is left out where it could only be compiled.

    Args:
        start_up: seconds that the first training step takes more than the others.
        submit: seconds that counting and writing a submission took, on a machine that others may be using as well.
        predict_all, predict_first: seconds that all predictions take, and those of the un-augmented examples.
        predictions: how many they are.  state_bytes: size of a checkpoint.
    """
    writing = WRITING_SECONDS + submit + WRITING_SECONDS_PER_PREDICTION * predictions
    checkpoint = state_bytes / CHECKPOINT_BYTES_PER_SECOND
    left = max(0.0, budget.seconds_left() - writing - checkpoint)
    predicting = REPORTING_SECONDS + min(1.15 * predict_all, max(1.3 * predict_first, MOST_FOR_PREDICTION * left))
    tuning = max(0.0, left - predicting)
    return Shares(time.monotonic() + tuning if tuning > start_up else None, budget.end - writing)
