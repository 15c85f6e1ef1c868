"""How much time a run has, and how it is divided between fine-tuning, prediction and writing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from utils import distributed


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


class Alarm:
    """Counts how often `minutes` have passed, so that rank 0's clock can decide for all (None: never)."""

    def __init__(self, minutes: float | None) -> None:
        self._seconds = None if minutes is None else 60 * minutes
        self._since = time.monotonic()
        self._count = self._heard = 0

    def rung(self) -> int:
        """How often it has rung on this rank; 0 on all but rank 0."""
        if self._seconds is not None and distributed.is_main() and time.monotonic() - self._since > self._seconds:
            self._count += 1
            self._since = time.monotonic()
        return self._count

    def is_new(self, rung: int) -> bool:
        """Whether it has rung again since the last time this was asked, by the count that all have agreed on."""
        new = rung > self._heard
        self._heard = max(rung, self._heard)
        return new


class _Clock:
    """Whether there is no time for another batch as long as the longest so far, on rank 0."""

    def __init__(self, until: float | None, longest: float = 0.0) -> None:
        self._until, self._longest, self._before = until, longest, time.monotonic()

    def restart(self) -> None:
        self._before = time.monotonic()

    def is_up(self) -> bool:
        now = time.monotonic()
        self._longest = max(self._longest, now - self._before)
        self._before = now
        # Two batches: the ranks learn of it one batch later.
        return self._until is not None and distributed.is_main() and now + 2 * self._longest > self._until
