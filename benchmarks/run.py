"""Measures this machine: `make bench`, or

    python -m benchmarks.run [--only step,parts,..] [--output FILE] [--cpu-time] [--profile FILE]

A table, then one line of JSON.  Absolute times of shared machines do not compare, so the step is measured against
a plain reference (benchmarks/sections/reference.py, weights cast at each use, adam-atan2-pytorch) in the same run.  A
section during which other programs were busy is marked.  `--only speed` measures what a claim about speed needs.
`python -m benchmarks.compare A.json B.json` compares two results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks import growth, timing
from benchmarks.sections import (
    ceilings,
    checkpoints,
    data,
    operations,
    prediction,
    products,
    start,
    steps,
    tables,
    votes,
)
from utils.files import write_atomically
from utils.run_directory import git_commit

BUSY = 0.25
"""From so many cores on that other programs use, before or after a section, its numbers are marked."""

SECTIONS: dict[str, Callable[[torch.device], dict[str, Any]]] = {
    "start": start.measure,
    "ceilings": ceilings.measure,
    "products": products.measure,
    "step": steps.measure,
    "parts": steps.measure_parts,
    "operations": operations.measure,
    "predict": steps.measure_prediction,
    "prediction": prediction.measure,
    "data": data.measure,
    "votes": votes.measure,
    "checkpoint": checkpoints.measure,
    "tables": tables.measure,
    "growth": growth.measure,
}

TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "growth": growth.table,
    "operations": operations.table,
    "products": products.table,
}
"""How a section's results are printed; by default a line for each."""

SPEED = ("step", "ceilings", "products", "operations", "prediction", "start")
"""What a claim about speed needs, as `--only speed`: at most 12 minutes on two cores."""

LEFT_OUT = ("start", "products", "operations", "prediction")
"""Measured if they are asked for: `make bench` takes 10 minutes without them."""


def hardware(device: torch.device) -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "git": git_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _mark(busy: float) -> str:
    return f"  BUSY: other programs used {busy:.1f} cores, so believe no time" if busy > BUSY else ""


def format_section(name: str, results: dict[str, Any]) -> str:
    """Returns what a section has found, as a table."""
    if name in TABLES:
        return TABLES[name](results)
    return "\n".join(
        f"  {key:<58}{value:>14,.4g}" if isinstance(value, float | int) else f"  {key:<58}{value:>14}"
        for key, value in results.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", help=f"some of {','.join(SECTIONS)}, or speed, which is {','.join(SPEED)}")
    parser.add_argument("--output", type=Path, help="write the JSON to this file, after each section")
    parser.add_argument(
        "--cpu-time", action="store_true", help="one thread, its CPU time: for a CPU that others use at the same time"
    )
    parser.add_argument("--profile", help="leave a trace of a few steps in this file and print where the time goes")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a result")
    arguments = parser.parse_args()
    if arguments.show:
        for name, found in json.loads(arguments.show.read_text(encoding="utf-8"))["results"].items():
            print(f"\n{name}\n{format_section(name, found)}")
        return
    chosen = _choose(arguments.only)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
    if arguments.cpu_time:
        timing.use_cpu_time()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if arguments.profile:
        steps.profile(device, arguments.profile)
        return
    results: dict[str, Any] = {}
    busy: dict[str, float] = {}
    for name in chosen:
        torch._dynamo.reset()  # no section sees graphs of another one
        others, started = timing.busy_cores(), time.perf_counter()
        results[name] = SECTIONS[name](device)
        busy[name] = round(max(others, timing.busy_cores()), 2)
        print(f"\n{name} ({time.perf_counter() - started:.0f} s){_mark(busy[name])}")
        clock = "CPU time of one thread" if arguments.cpu_time else "wall"
        line = json.dumps({**hardware(device), "clock": clock, "busy_cores": busy, "results": results})
        if arguments.output:
            write_atomically(arguments.output, line + "\n")
        print(format_section(name, results[name]), flush=True)
    print(line)


def _choose(only: str | None) -> list[str]:
    """Returns the sections that `--only` names."""
    if only is None:
        return [name for name in SECTIONS if name not in LEFT_OUT]
    chosen = [name for word in only.split(",") for name in (SPEED if word == "speed" else [word])]
    if unknown := set(chosen) - set(SECTIONS):
        sys.exit(f"error: --only {','.join(sorted(unknown))} is not known: choose of {','.join(SECTIONS)},speed")
    return chosen


if __name__ == "__main__":
    main()
