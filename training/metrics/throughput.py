"""Measures how fast training steps are and how much memory they take."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")

MACHINE_METRICS = ("examples_per_second", "data_wait_fraction", "mfu", "peak_memory_gb")
"""Keys of a log line that depend on the machine and its load.  All others are equal in every run of the same
settings."""


class Throughput:
    """Measures the speed of steps between two lines of the log, on the host.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begins to measure again."""
        self._since, self._waited, self._examples, self._flop = self._clock(), 0.0, 0, 0.0

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """Yields the batches and counts the time spent waiting for them."""
        iterator = iter(batches)
        while True:
            started = self._clock()
            batch = next(iterator, None)
            self._waited += self._clock() - started
            if batch is None:
                return
            yield batch

    def add(self, examples: int, flop: float) -> None:
        """Counts a step: its examples over all ranks, and the floating-point operations of this device."""
        self._examples += examples
        self._flop += flop

    def measure(self, peak_flops: float | None) -> dict[str, float]:
        """Returns examples per second, the fraction of the time spent waiting for data and, where the peak is known,
        the model FLOPs utilisation: the network's operations per second over those of the device's peak.

        A utilisation above 1 is left out: the peak of a CPU is measured, and the machine was busy then.
        """
        seconds = max(self._clock() - self._since, 1e-9)
        speed = {"examples_per_second": self._examples / seconds, "data_wait_fraction": self._waited / seconds}
        used = None if peak_flops is None else self._flop / seconds / peak_flops
        return speed if used is None or used > 1 else {**speed, "mfu": used}


def peak_memory_gb(device: torch.device) -> float:
    """Returns the most memory that this rank has used: of the device on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
