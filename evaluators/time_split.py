"""Splits the time of a run between fine-tuning, prediction and writing."""

from __future__ import annotations

import time
from dataclasses import dataclass

from utils.timers import Deadline

WRITING_SECONDS = 1.0
REPORTING_SECONDS = 1.0
"""For the submissions that are written while predictions are made."""

WRITING_SECONDS_PER_PREDICTION = 60e-6
CHECKPOINT_BYTES_PER_SECOND = 150e6
MOST_FOR_PREDICTION = 0.4
"""The largest fraction of the time left that prediction takes from fine-tuning, beyond its first round."""


@dataclass(frozen=True)
class TimeSplit:
    """When fine-tuning and prediction must have ended, as `time.monotonic()`.

    training: None if there is no time for it.
    """

    training: float | None
    prediction: float

    def summary(self, deadline: Deadline) -> str:
        """Returns the split in words."""
        left = max(0.0, deadline.seconds_left())
        training = 0.0 if self.training is None else self.training - time.monotonic()
        return f"{left:.0f} s left: {training:.0f} s of fine-tuning, {left - training:.0f} s for prediction and writing"


def split_time(
    deadline: Deadline,
    *,
    predict_all: float,
    predict_first: float,
    start_up: float,
    submit: float,
    predictions: int,
    state_bytes: int,
) -> TimeSplit:
    """Reserves the time that is needed after fine-tuning; there is no fine-tuning if it would end while it compiles.

    Args:
        predict_all, predict_first: seconds that all predictions take, and those of the un-augmented examples.
        start_up: seconds that the first training step takes more than the others.
        submit: seconds that counting and writing a submission took, on a machine that others may use as well.
        predictions: how many there are.
        state_bytes: the size of a checkpoint.
    """
    writing = WRITING_SECONDS + submit + WRITING_SECONDS_PER_PREDICTION * predictions
    checkpoint = state_bytes / CHECKPOINT_BYTES_PER_SECOND
    left = max(0.0, deadline.seconds_left() - writing - checkpoint)
    predicting = REPORTING_SECONDS + min(1.15 * predict_all, max(1.3 * predict_first, MOST_FOR_PREDICTION * left))
    training = max(0.0, left - predicting)
    return TimeSplit(time.monotonic() + training if training > start_up else None, deadline.end - writing)
