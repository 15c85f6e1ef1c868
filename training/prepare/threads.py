"""Says when other programs would slow down the threads of a run on a CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

import torch

from utils import distributed

STAT = Path("/proc/stat")

SHARED = 0.5
"""So many cores fewer than threads are still called enough: a browser or an editor is never quite idle."""


def crowded_because(device: torch.device) -> str:
    """Says that threads outnumber the cores that other programs leave, and what to set; empty if they do not.

    PyTorch's threads wait for each other after every operation, and they wait by running.  A thread without a core
    thus stops all others: beside one other program, two threads on two cores make a quarter of their steps, and one
    thread makes half (docs/performance.md).  Ranks on one machine are not looked at.
    """
    threads, waits = torch.get_num_threads(), os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
    if device.type != "cpu" or threads == 1 or waits or distributed.world_size() > 1:
        return ""
    if not STAT.is_file() or not hasattr(os, "sched_getaffinity"):  # the load of the last minute is this user's own too
        return ""
    allowed = os.sched_getaffinity(0)
    cores, busy = len(allowed), busy_cores(0.2, cores=allowed)
    if threads + busy <= cores + SHARED:
        return ""
    return (
        f"other programs use {busy:.1f} of {cores} cores, and {threads} threads that wait for each other are several "
        f"times slower for it: set OMP_NUM_THREADS={max(1, round(cores - busy))}, or let the others end"
    )


def busy_cores(seconds: float = 0.5, stat: Path = STAT, cores: Collection[int] | None = None) -> float:
    """Returns how many cores other programs keep busy, measured while this one sleeps.

    Where the system has no `/proc/stat` it is the load of the last minute, this program's included.

    Args:
        cores: of these alone; by default of all.
    """
    before = _busy_seconds(stat, cores)
    time.sleep(seconds)
    after = _busy_seconds(stat, cores)
    if before is None or after is None:
        return os.getloadavg()[0]
    return (after - before) / seconds


def _busy_seconds(stat: Path, cores: Collection[int] | None) -> float | None:
    """Returns for how many seconds the cores together have not been idle since the machine started."""
    if not stat.is_file():
        return None
    names = {"cpu"} if cores is None else {f"cpu{core}" for core in cores}
    ticks = 0
    for name, *numbers in map(str.split, stat.read_text().splitlines()):
        if name in names:
            user, nice, system, _, _, irq, softirq, steal, *_ = map(int, numbers)
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")
