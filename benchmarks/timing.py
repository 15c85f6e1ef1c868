"""Measures the time of a call, the device's work included.

Shared machines are slow from time to time.  What is compared is therefore measured in turns, and the best of many
calls says more than their mean.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from training.prepare.threads import busy_cores as busy_cores

MOST = 200

clock: Callable[[], float] = time.perf_counter
"""`time.process_time` instead, with one thread, on a CPU that others use too: `use_cpu_time`."""


def use_cpu_time() -> None:
    """Uses one thread from now on, and measures its CPU time."""
    global clock
    torch.set_num_threads(1)
    clock = time.process_time


def once(call: Callable[[], object], device: torch.device) -> float:
    started = clock()
    call()
    synchronise(device)
    return clock() - started


def in_turns(
    calls: Mapping[str, Callable[[], object]], device: torch.device, least: int = 5, budget: float = 4.0
) -> dict[str, list[float]]:
    """Returns the seconds of each call, round by round.

    Two calls warm up.  Then at least `least` rounds are made, and about `budget` seconds are spent on each call.
    """
    for call in calls.values():
        call()
        call()
    synchronise(device)
    times: dict[str, list[float]] = {name: [] for name in calls}
    until, rounds = clock() + budget * len(calls), 0
    while rounds < least or (clock() < until and rounds < MOST):
        for name, call in calls.items():
            times[name].append(once(call, device))
        rounds += 1
    return times


def seconds(call: Callable[[], object], device: torch.device, least: int = 5, budget: float = 4.0) -> float:
    """Returns the median time of a call."""
    return statistics.median(in_turns({"": call}, device, least, budget)[""])


def best(call: Callable[[], object], device: torch.device, least: int = 5, budget: float = 4.0) -> float:
    """Returns the shortest time of a call."""
    return min(in_turns({"": call}, device, least, budget)[""])


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
