"""Measures how time and memory of a step grow with canvas, batch, puzzles and ranks, beside the cost model.

    python -m benchmarks.growth RESULT.json [--plot growth.png]   # measures, or draws again (--only-plot)

Canvas, batch and puzzles are measured in CPU time of one thread, which other programs on the machine do not change;
ranks are measured by the clock.  The model takes its rate and the fixed part of a step from two points of a series (the
smallest, and 400 cells or 8 examples) and predicts the others.  For puzzles and ranks it predicts from the first point.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.sections.steps import SMALL, Size, arch_of, batch_of, ours, state_of
from benchmarks.timing import best
from models.puzzles.table import PuzzleTable
from training.metrics import cost_model
from training.metrics.cost_model import Machine, Workload
from training.step import train_step
from utils import distributed

BASE = SMALL[1]._replace(name="growth", H=1, B=8)
CELLS, BATCHES, RANKS = (64, 144, 400, 900), (2, 8, 16), (1, 2, 4)
PUZZLES = (1_000, 10_000, 100_000, 1_000_000)
BATCH_CELLS = 256


class Point(NamedTuple):
    """One measurement: where, seconds and bytes, each measured and predicted; bytes are 0 where not measured."""

    at: int
    seconds: float
    predicted: float
    bytes: float = 0
    predicted_bytes: float = 0


def _cpu_seconds(call: Callable[[], object], budget: float = 3.0) -> float:
    """The least CPU time of a call, after two that warm up."""
    call()
    call()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < budget and len(times) < 200):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return min(times)


def workload_of(size: Size) -> list[Workload]:
    return [Workload(size.cells, size.B)]


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * float(line.split()[1]) for line in lines if line.startswith(field))


def _series(sizes: dict[int, Size], device: torch.device, anchor: int) -> list[Point]:
    """Times of compiled steps of these sizes."""
    measured = {}
    for at, size in sizes.items():
        torch._dynamo.reset()  # which keeps only so many compiled steps in one process, and then compiles no more
        measured[at] = _cpu_seconds(ours(size, device, compiled=True))
    return predicted(sizes, measured, anchor)


def predicted(sizes: dict[int, Size], measured: dict[int, float], anchor: int) -> list[Point]:
    """Measured times beside the model's, whose fixed part and rate come from the first of the sizes and the anchor."""
    flop = {at: cost_model.step_flop(arch_of(size), workload_of(size)) for at, size in sizes.items()}
    first = next(iter(sizes))
    flops = (flop[anchor] - flop[first]) / (measured[anchor] - measured[first])
    machine = Machine(flops, fixed=measured[anchor] - flop[anchor] / flops)
    return [
        Point(at, measured[at], cost_model.step_seconds(arch_of(size), workload_of(size), machine))
        for at, size in sizes.items()
    ]


def _by_puzzles(device: torch.device) -> list[Point]:
    """One step over tables of growing size; the model says that nothing changes but the table's bytes."""
    torch._dynamo.reset()
    size = BASE._replace(cells=64)
    state, batch = state_of(size, device, compiled=True), batch_of(size)
    found = []
    for rows in PUZZLES:
        before = _status("VmRSS")
        state.table = PuzzleTable(rows, size.D, device)
        state.table.weights.fill_(0.0)  # so that the system really gives the memory
        held = _status("VmRSS") - before
        found.append((rows, _cpu_seconds(lambda: train_step(state, batch, total_steps=10**6)), held))
        state.table = None
    return [Point(rows, spent, found[0][1], held, 4.0 * rows * size.D) for rows, spent, held in found]


def _by_ranks() -> list[Point]:
    """Ranks of one thread and one batch each (gloo); beyond the cores they share them."""
    measured = {}
    for ranks in RANKS:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        done = subprocess.run(
            [*command, "-m", "benchmarks.growth", "--worker"],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        measured[ranks] = float(done.stdout.split()[-1])
    cores = os.cpu_count() or 1  # ranks beyond them take turns
    return [Point(ranks, spent, measured[1] * max(1.0, ranks / cores)) for ranks, spent in measured.items()]


def _worker() -> None:
    device = distributed.setup("cpu")
    size = BASE._replace(cells=256, B=4 * distributed.world_size())
    spent = best(ours(size, device, compiled=False, share=1 / distributed.world_size()), device)
    if distributed.is_main():
        print(spent, flush=True)
    distributed.barrier()
    os._exit(0)  # Gloo's threads sometimes abort a process that ends in the usual way (PyTorch 2.13)


def measure(device: torch.device, found: Callable[[dict[str, Any]], object] = lambda series: None) -> dict[str, Any]:
    """The four series, as lists of `Point` by name.  On a CPU under Linux; nothing elsewhere.

    Args:
        found: is told what there is after each series.
    """
    if device.type != "cpu" or not Path("/proc/self/status").exists():
        return {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ways: dict[str, Callable[[], list[Point]]] = {
        "cells of the canvas": lambda: _series({cells: BASE._replace(cells=cells) for cells in CELLS}, device, 400),
        "examples per step": lambda: _series({B: BASE._replace(cells=BATCH_CELLS, B=B) for B in BATCHES}, device, 8),
        "puzzles": lambda: _by_puzzles(device),
        "ranks": _by_ranks,
    }
    series: dict[str, Any] = {}
    for name, way in ways.items():
        series[name] = way()
        found(series)
    torch.set_num_threads(threads)
    return series


def table(series: dict[str, list[Point]]) -> str:
    lines = []
    for name, points in series.items():
        for p in points:
            memory = f"{p.bytes / 1e6:>9,.0f} MB{p.predicted_bytes / 1e6:>9,.0f} MB" if p.bytes else ""
            off = p.predicted / p.seconds - 1
            lines.append(f"  {name:<22}{p.at:>10,}{p.seconds:>10.4f} s{p.predicted:>10.4f} s{off:>+8.0%}{memory}")
    return "\n".join(lines)


def plot(series: dict[str, list[Point]], path: Path) -> None:
    """Draws each series; needs matplotlib (`pip install -e ".[pictures]"`)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(series), figsize=(13, 3.2), constrained_layout=True)
    for panel, (name, points) in zip(panels, series.items(), strict=True):
        at = [p.at for p in points]
        panel.plot(at, [1e3 * p.seconds for p in points], "o-", label="measured")
        panel.plot(at, [1e3 * p.predicted for p in points], "x--", label="predicted")
        panel.set(xscale="log", xlabel=name, ylabel="time per step, ms")
        panel.set_xticks(at, [f"{x:,}" for x in at])
        panel.minorticks_off()
        panel.set_ylim(bottom=0, top=1.25e3 * max(max(p.seconds, p.predicted) for p in points))
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, help="where the series are kept as JSON")
    parser.add_argument("--plot", type=Path, help="draw them into this PNG")
    parser.add_argument("--only-plot", action="store_true", help="draw what was measured before")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _worker()
        return
    if arguments.results is None:
        parser.error("name the file of results")
    if not arguments.only_plot:
        measure(torch.device("cpu"), lambda series: arguments.results.write_text(json.dumps(series, indent=1) + "\n"))
    kept = json.loads(arguments.results.read_text())
    kept = kept.get("results", kept).get("growth", kept)
    series = {name: [Point(*point) for point in points] for name, points in kept.items()}
    print(table(series))
    if arguments.plot:
        plot(series, arguments.plot)


if __name__ == "__main__":
    main()
