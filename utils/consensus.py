"""Decisions that all ranks take at the same step, although they do not wait for each other at every step."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

REPEAT_SECONDS = 2.0
"""A repeated signal within this time counts as the first one: a job scheduler and torchrun may both pass it on."""


class FlagConsensus:
    """An asynchronous maximum over ranks of a few small integers (flags, counts).

    Every rank calls `exchange` after each step.  At world size 1 it returns the values at once.  Otherwise an
    all-reduce in host memory starts every `every` steps, and its result is read `every` steps later.  It has arrived
    by then, so that no step waits for the device or for another rank.

        step      1  2  3  4  5  6  7  8  9  ..         every = 4
        starts             a           b                of the values at step 4, 8
        returns            -           a                None at all other steps

    Args:
        every: the number of steps between two exchanges.
    """

    def __init__(self, every: int = 4) -> None:
        self.every = every
        self._calls = 0
        self._pending: tuple[Any, torch.Tensor] | None = None

    @property
    def delay(self) -> int:
        """The largest number of steps from a rank's first call with a value to the step at which all ranks get it."""
        return 2 * self.every - 1 if dist.is_initialized() and dist.get_world_size() > 1 else 0

    def exchange(self, *values: int) -> tuple[int, ...] | None:
        """Returns the largest of each value over all ranks, or None at a step at which no result is read.

        All ranks must call it at every step.
        """
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return values
        self._calls += 1
        if self._calls % self.every:
            return None
        result = self._collect()
        sent = torch.tensor(values, dtype=torch.int64)
        self._pending = (dist.all_reduce(sent, op=dist.ReduceOp.MAX, async_op=True), sent)
        return result

    def close(self) -> None:
        """Waits for the exchange that is under way and drops its result."""
        self._collect()

    def _collect(self) -> tuple[int, ...] | None:
        if self._pending is None:
            return None
        work, values = self._pending
        self._pending = None
        work.wait()
        return tuple(values.tolist())


class StopSignals:
    """Within the block SIGTERM and SIGINT are only recorded.  A second signal ends the process at once, with status
    128 + its number.

    received: the number of the first signal, 0 for none.
    """

    def __init__(self) -> None:
        self.received, self._since = 0, 0.0
        self._before: dict[int, Any] = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received and time.monotonic() - self._since > REPEAT_SECONDS:
            os._exit(128 + number)
        if not self.received:
            self.received, self._since = number, time.monotonic()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
