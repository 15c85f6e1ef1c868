"""Decisions that all ranks take at the same step, without waiting for each other at every step."""

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
"""A scheduler and torchrun may both send the one signal that was meant."""


class Agreement:
    """Every rank offers a few small numbers after each step and now and then learns the largest that any has offered.

    At world size 1 that is at once.  Else an exchange in host memory begins every `every` steps and is read `every`
    steps later, when it has long arrived: no step waits for the device, or for a rank that is no slower than the
    gradients' own exchange makes it.

    Args:
        every: steps between two exchanges.
    """

    def __init__(self, every: int = 4) -> None:
        self.every = every
        self._calls = 0
        self._pending: tuple[Any, torch.Tensor] | None = None

    @property
    def delay(self) -> int:
        """Steps at most from one that offers a number to that at which all know it."""
        return 2 * self.every - 1 if dist.is_initialized() and dist.get_world_size() > 1 else 0

    def offer(self, *values: int) -> tuple[int, ...] | None:
        """The agreed numbers, or None at a step at which nothing is learnt.  To be called at every step, by all."""
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return values
        self._calls += 1
        if self._calls % self.every:
            return None
        agreed = self._collect()
        offered = torch.tensor(values, dtype=torch.int64)
        self._pending = (dist.all_reduce(offered, op=dist.ReduceOp.MAX, async_op=True), offered)
        return agreed

    def close(self) -> None:
        """Ends the exchange that is under way."""
        self._collect()

    def _collect(self) -> tuple[int, ...] | None:
        if self._pending is None:
            return None
        work, values = self._pending
        self._pending = None
        work.wait()
        return tuple(values.tolist())


class StopSignals:
    """Within the block SIGTERM and SIGINT are noted; a second one ends the process at once, with status 128 + signal.

    received: the number of the signal, 0 for none.
    """

    def __init__(self) -> None:
        self.received, self._since = 0, 0.0
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received and time.monotonic() - self._since > REPEAT_SECONDS:
            os._exit(128 + number)
        if not self.received:
            self.received, self._since = number, time.monotonic()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
