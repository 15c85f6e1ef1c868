"""Clocks of a run: its deadline, and small timers that say when something is due.

Times are `time.monotonic()`.  Rank 0's clock decides for all ranks (`utils.consensus`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from utils import distributed
from utils.errors import SettingError

Clock = Callable[[], float]


@dataclass(frozen=True)
class Deadline:
    """The time by which the process must have ended.

    end: `time.monotonic()`.
    """

    end: float

    @classmethod
    def from_settings(cls, minutes: float | None, deadline: str | None) -> Deadline | None:
        """Returns the deadline that the settings ask for; None for none.

        Args:
            minutes: since the process, or torchrun, was started.
            deadline: a clock time such as 17:30 or 2026-11-03T17:30.

        Raises:
            SettingError: if `deadline` is not a time, or past.
        """
        if minutes is not None:
            return cls(time.monotonic() - seconds_since_start() + 60 * minutes)
        if deadline is None:
            return None
        seconds = (parse_deadline(deadline, datetime.now()) - datetime.now()).total_seconds()
        if seconds <= 0:
            raise SettingError(f"deadline={deadline} is past: name a later one")
        return cls(time.monotonic() + seconds)

    def seconds_left(self) -> float:
        """Returns the seconds until the end; negative once it is past."""
        return self.end - time.monotonic()


def parse_deadline(text: str, now: datetime) -> datetime:
    """Reads a date and time in ISO 8601, or HH:MM, which is the next time that a clock shows it.

    The result is in local time.

    Raises:
        SettingError: if the text is neither.
    """
    try:
        if "T" in text or " " in text:
            named = datetime.fromisoformat(text)
            return named.astimezone().replace(tzinfo=None) if named.tzinfo else named
        clock = datetime.strptime(text, "%H:%M")
    except ValueError:
        raise SettingError(f"deadline={text} is not a time: write 17:30 or 2026-11-03T17:30") from None
    today = now.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
    return today if today > now else today + timedelta(days=1)


def seconds_since_start() -> float:
    """Returns how long this process, or the torchrun that started it, has been running, imports included."""
    pids = ["self", *([str(os.getppid())] if "TORCHELASTIC_RUN_ID" in os.environ else [])]
    try:
        up = float(Path("/proc/uptime").read_text().split()[0])
        return max(up - _started(pid) for pid in pids)
    except (OSError, ValueError, IndexError):  # not Linux
        return time.process_time()


def _started(pid: str) -> float:
    """Returns when a process started, in seconds since the machine did; proc(5)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


class StepTimer:
    """Says when there is no time for another step, by the average of the steps so far.

    Args:
        until: when the last step must have ended; None for never.
        ahead: how many more steps are made once this is known.
        clock: seconds.
    """

    def __init__(self, until: float | None, ahead: int, clock: Clock = time.monotonic) -> None:
        self._until, self._ahead, self._clock = until, ahead, clock
        self._steps, self._since = -1, clock()

    def is_up(self, compiled: bool = False) -> bool:
        """Returns whether time is up.  Call it after every step.

        Args:
            compiled: the step compiled something.  Such steps, and the first one, are left out of the average.
        """
        now = self._clock()
        self._steps += 1
        if self._steps == 0 or compiled:
            self._since, self._steps = now, 0
        average = (now - self._since) / max(1, self._steps)
        return self._until is not None and now + self._ahead * average > self._until


class BatchTimer:
    """Says on rank 0 when there is no time for another batch that takes as long as the longest so far.

    Args:
        until: when the last batch must have ended; None for never.
        longest: seconds of a batch that was measured before.
        clock: seconds.
    """

    def __init__(self, until: float | None, longest: float = 0.0, clock: Clock = time.monotonic) -> None:
        self._until, self._longest, self._clock = until, longest, clock
        self._since = clock()

    def restart(self) -> None:
        """Leaves out the time since the last batch."""
        self._since = self._clock()

    def is_up(self) -> bool:
        """Returns whether time is up.  Call it after every batch."""
        now = self._clock()
        self._longest = max(self._longest, now - self._since)
        self._since = now
        # Two batches: the other ranks learn of it one batch later.
        return self._until is not None and distributed.is_main() and now + 2 * self._longest > self._until


class CheckpointTimer:
    """Counts how often some minutes have passed, so that rank 0's clock can decide for all ranks.

    Args:
        minutes: between two checkpoints; None for never.
        clock: seconds.
    """

    def __init__(self, minutes: float | None, clock: Clock = time.monotonic) -> None:
        self._seconds = None if minutes is None else 60 * minutes
        self._clock, self._since = clock, clock()
        self._count = self._seen = 0

    def count(self) -> int:
        """Returns how often the time has passed on rank 0; 0 on the other ranks.  Call it after every step."""
        if self._seconds is not None and distributed.is_main() and self._clock() - self._since > self._seconds:
            self._count += 1
            self._since = self._clock()
        return self._count

    def is_due(self, count: int) -> bool:
        """Returns whether `count`, on which all ranks have agreed, is higher than at the last call."""
        is_higher = count > self._seen
        self._seen = max(count, self._seen)
        return is_higher
