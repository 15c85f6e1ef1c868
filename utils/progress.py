"""Shows how far a loop is, its speed and the time left: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from utils.cli import launched_rank

_BAR_UNTIL = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"
"""The bar of a loop that time ends: how long all of its steps would take says nothing."""

_WINDOW = 8  # the rate is computed over this many reports


class Progress:
    """A bar where `file` is a terminal; otherwise a line every `every_seconds` and one at the end:

        train 30% 1200/4000 | 667 examples/s | 0:08:57 left | loss 0.412, exact 31.0%

    The rate leaves out everything before the first update, so that compilation does not spoil it.

    Args:
        total: all steps, including those before a resume.
        description: the first word of the line.
        unit: the name of a step.
        initial: the steps that were made before, for example by the run that is resumed.
        items_per_step: if above 1, the rate is given in examples.
        until: when the loop ends at the latest, by `clock`; the time left is then at most until there.
        every_seconds: the time between two plain lines.
        enabled: None for rank 0 alone.
        file: None for stderr.
        clock: returns seconds; tests replace it.
    """

    def __init__(
        self,
        total: int,
        description: str,
        unit: str = "step",
        initial: int = 0,
        items_per_step: int = 1,
        until: float | None = None,
        every_seconds: float = 20.0,
        enabled: bool | None = None,
        file: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.description = description
        self.unit = unit
        self.done = initial
        self.items_per_step = items_per_step
        self.until = until
        self.every_seconds = every_seconds
        self.enabled = launched_rank() == 0 if enabled is None else enabled
        self._file = sys.stderr if file is None else file
        self._clock = clock
        self._metrics = ""
        self._reports: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._last_line = self._started = clock()
        self._reported = initial
        self._bar = tqdm(
            total=total,
            initial=initial,
            desc=description,
            unit=unit,
            file=self._file,
            dynamic_ncols=True,
            bar_format=None if until is None else _BAR_UNTIL,
            disable=None if self.enabled else True,  # None: disabled where the file is no terminal
        )

    def update(self, steps: int = 1) -> None:
        """Adds steps that were made."""
        self.done += steps
        if not self.enabled:
            return
        self._bar.update(steps)
        now = self._clock()
        if not self._reports:
            self._reports.append((now, self.done))
        if now - self._last_line >= self.every_seconds:
            self._report(now)

    def show(self, metrics: str) -> None:
        """Shows a few metrics beside the count from now on."""
        self._metrics = metrics
        if self.enabled:
            rate = self.rate() if self.items_per_step > 1 else None
            speed = f"{rate * self.items_per_step:,.0f} examples/s, " if rate is not None else ""
            if self.until is not None:
                speed = f"{clock_time(max(0.0, self.until - self._clock()))} left, {speed}"
            self._bar.set_postfix_str(speed + metrics, refresh=False)

    def rate(self) -> float | None:
        """Returns the steps per second since the oldest of the last reports; None before there are two of them."""
        if not self._reports:
            return None
        then, count = self._reports[0]
        seconds = self._clock() - then
        return (self.done - count) / seconds if seconds > 0 and self.done > count else None

    def seconds_left(self, rate: float) -> float:
        """Returns how long the loop still takes, at so many steps per second."""
        left = (self.total - self.done) / rate
        return left if self.until is None else max(0.0, min(left, self.until - self._clock()))

    def line(self) -> str:
        """Returns the line that is printed where there is no terminal."""
        now, of_steps = self._clock(), self.done / self.total if self.total else 0.0
        if (
            self.until is not None
            and (of_time := (now - self._started) / max(self.until - self._started, 1e-9)) > of_steps
        ):
            parts = [f"{self.description} {min(of_time, 1.0):.0%} of the time, {self.done} {self.unit}s"]
        else:
            parts = [f"{self.description}{f' {of_steps:.0%}' if self.total else ''} {self.done}/{self.total}"]
        rate = self.rate()
        if rate is not None:
            of_items = self.items_per_step > 1
            parts.append(f"{rate * self.items_per_step:,.0f} examples/s" if of_items else f"{rate:.3g} {self.unit}/s")
            if self.done < self.total:
                parts.append(f"{clock_time(self.seconds_left(rate))} left")
        if self._metrics:
            parts.append(self._metrics)
        return " | ".join(parts)

    def close(self) -> None:
        """Prints the last line, or ends the bar."""
        if self.enabled and self._reported != self.done:
            self._report(self._clock())
        self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _report(self, now: float) -> None:
        self._last_line = now
        self._reported = self.done
        if self._bar.disable:
            print(self.line(), file=self._file, flush=True)
        self._reports.append((now, self.done))


def progress_callback(
    prefix: str = "",
    every_seconds: float = 5.0,
    file: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[int, int], None]:
    """Returns a function to call with (done, total), which prints a line from time to time:

        12,000 of 48,000, 2,400/s, 0:00:15 left

    It prints nothing about work that is done within `every_seconds`.  One loop may follow another: a new one begins
    where `done` is lower than before, or `total` is another.  The rate leaves out everything before the first call of
    a loop, so that compilation does not spoil it.

    Args:
        prefix: put before each line.
        every_seconds: from the first call to the first line, and between two lines where `file` is a terminal.  In a
            log four times as many seconds pass between two lines.
        file: None for stderr.
        clock: returns seconds; tests replace it.
    """
    stream = sys.stderr if file is None else file
    between = every_seconds * (1 if stream.isatty() else 4)
    began, due, first, last = 0.0, 0.0, 0, (0, 0)

    def report(done: int, total: int) -> None:
        nonlocal began, due, first, last
        now = clock()
        if total != last[1] or done < last[0]:
            began, due, first = now, now + every_seconds, done
        last = (done, total)
        if now < due or done == first:
            return
        due = now + between
        rate = (done - first) / (now - began)
        left = clock_time((total - done) / rate)
        print(f"{prefix}{done:,} of {total:,}, {rate:,.3g}/s, {left} left", file=stream, flush=True)

    return report


def clock_time(seconds: float) -> str:
    """Returns seconds as hours:minutes:seconds, after the days if there are any."""
    whole = round(seconds)
    days, rest = divmod(whole, 86400)
    text = f"{rest // 3600}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days}d {text}" if days else text


def print0(text: str) -> None:
    """Prints a line at once, above a progress bar where there is one; on ranks other than 0 it does nothing."""
    if launched_rank() == 0:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


def count_of(number: int, singular: str, plural: str) -> str:
    """Returns the number and the form that fits it: `1 task is`, `1,200 tasks are`."""
    return f"{number:,} {singular if number == 1 else plural}"
