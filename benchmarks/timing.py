"""Time per call, on the device's own clock where it has one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds(call: Callable[[], object], device: torch.device, least: int = 5, budget: float = 6.0) -> float:
    """The median time of a call after two that warm up, over at least `least` calls and about `budget` seconds."""
    for _ in range(2):
        call()
    synchronise(device)
    times: list[float] = []
    until = time.perf_counter() + budget
    while len(times) < least or (time.perf_counter() < until and len(times) < 200):
        started = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
