"""How much time a run has, and how it is divided between fine-tuning, prediction and writing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path


@dataclass(frozen=True)
class Budget:
    """end: `time.monotonic()` by which the process must have ended."""

    end: float

    @classmethod
    def of(cls, minutes: float | None, deadline: str | None) -> Budget | None:
        """From minutes since the process, or torchrun, began, or a clock time such as 17:30 or 2026-11-03T17:30; None
        for neither.

        Raises:
            ValueError: if the deadline is no time, or past.
        """
        if minutes is not None:
            return cls(time.monotonic() - seconds_since_start() + 60 * minutes)
        if deadline is None:
            return None
        seconds = (parse_deadline(deadline, datetime.now()) - datetime.now()).total_seconds()
        if seconds <= 0:
            raise ValueError(f"deadline={deadline} is past: name a later one")
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()


def parse_deadline(text: str, now: datetime) -> datetime:
    """A date and time in ISO 8601, or HH:MM, which is the next time that a clock shows it; in local time, unless it
    names a zone."""
    try:
        if "T" in text or " " in text:
            named = datetime.fromisoformat(text)
            return named.astimezone().replace(tzinfo=None) if named.tzinfo else named
        clock = datetime.strptime(text, "%H:%M")
    except ValueError:
        raise ValueError(f"deadline={text} is no time: write 17:30 or 2026-11-03T17:30") from None
    today = now.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
    return today if today > now else today + timedelta(days=1)


def seconds_since_start() -> float:
    """How long this process has been running, or the torchrun that started it, imports included."""
    pids = ["self", *([str(os.getppid())] if "TORCHELASTIC_RUN_ID" in os.environ else [])]
    try:
        up = float(Path("/proc/uptime").read_text().split()[0])
        return max(up - _started(pid) for pid in pids)
    except (OSError, ValueError, IndexError):  # not Linux
        return time.process_time()


def _started(pid: str) -> float:
    """When a process started, in seconds since the machine did; proc(5)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Shares:
    """When each part must have ended, as `time.monotonic()`.  training: None where there is no time for any."""

    training: float | None
    prediction: float


class Clock:
    """Whether there is time for no further step, by the steps so far.

    Args:
        until: `time.monotonic()` at which the last one must have ended; None for never.
        ahead: how many more steps are made once this is known.
    """

    def __init__(self, until: float | None, ahead: int) -> None:
        self._until, self._ahead = until, ahead
        self._steps, self._began = -1, time.monotonic()

    def is_up(self, compiled: bool = False) -> bool:
        """To be asked after every step.  The first one, and others that `compiled`, count for none of those to come."""
        now = time.monotonic()
        self._steps += 1
        if self._steps == 0 or compiled:
            self._began, self._steps = now, 0
        average = (now - self._began) / max(1, self._steps)
        return self._until is not None and now + self._ahead * average > self._until


WRITING_SECONDS = 1.0
REPORTING_SECONDS = 1.0
"""For the submissions that are written while predictions are made."""

WRITING_SECONDS_PER_PREDICTION = 60e-6
CHECKPOINT_BYTES_PER_SECOND = 150e6
MOST_FOR_PREDICTION = 0.4
"""Of the time left, the most that prediction is given at the cost of fine-tuning, beyond its first round."""


def divide(
    budget: Budget,
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
    left = max(0.0, budget.left() - writing - checkpoint)
    predicting = REPORTING_SECONDS + min(1.15 * predict_all, max(1.3 * predict_first, MOST_FOR_PREDICTION * left))
    tuning = max(0.0, left - predicting)
    return Shares(time.monotonic() + tuning if tuning > start_up else None, budget.end - writing)
