"""Compares the compiled training step of this checkout with that of another, each measured by its own code:

    python -m benchmarks.compare OTHER_CHECKOUT [--rounds 2]
    python -m benchmarks.compare A.json B.json         results of `python -m benchmarks.run`, for example of two commits

The checkouts take turns (other, this, other, this, ..), each time in a process of its own, so that a busy machine slows
both alike.  Every process also measures the plain reference (benchmarks/sections/reference.py).  What is compared is
how many times faster than the reference each checkout is: absolute times of shared machines do not compare.

A table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.run import BUSY, hardware

HERE = Path(__file__).resolve().parents[1]

MEASURE = """
import json, statistics, torch
try:
    from benchmarks.sections import steps
except ImportError:
    from benchmarks import steps
from benchmarks.timing import in_turns
device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
for size in steps.SMALL:
    torch._dynamo.reset()
    builders = {"reference": steps.ReferenceStep, "ours": steps.ours}
    times = in_turns({name: build(size, device, True) for name, build in builders.items()}, device, budget=BUDGET)
    ratios = [theirs / mine for theirs, mine in zip(times["reference"], times["ours"])]
    print("RESULT", json.dumps([size.name, statistics.median(ratios), statistics.median(times["ours"])]), flush=True)
"""
"""Runs in a checkout, also in those of before its benchmarks were in folders."""


def measure(checkout: Path, budget: float) -> dict[str, tuple[float, float]]:
    """Returns for each size how many times faster than the reference a step is, and its seconds."""
    program = MEASURE.replace("BUDGET", str(budget))
    done = subprocess.run([sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: the step of {checkout} cannot be measured:\n{done.stderr[-2000:]}")
    lines = [json.loads(line.removeprefix("RESULT ")) for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return {name: (ratio, seconds) for name, ratio, seconds in lines}


def compare(other: Path, rounds: int, budget: float) -> dict[str, dict[str, Any]]:
    """Measures both checkouts in turns; returns the results by size."""
    checkouts = {"other": other, "this": HERE}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for turn in range(rounds):
        for which, checkout in checkouts.items():
            for size, result in measure(checkout, budget).items():
                found.setdefault(size, {"other": [], "this": []})[which].append(result)
            print(f"round {turn + 1} of {rounds}, {which}: {checkout}", file=sys.stderr, flush=True)
    return {size: summarise(results) for size, results in found.items()}


def summarise(results: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Returns the medians, and how many times faster than the other checkout this one is."""
    ratio = {which: statistics.median(ratio for ratio, _ in pairs) for which, pairs in results.items()}
    return {
        **{f"reference / {which}": [round(ratio, 4) for ratio, _ in pairs] for which, pairs in results.items()},
        **{f"{which}, s": statistics.median(seconds for _, seconds in pairs) for which, pairs in results.items()},
        "this is so many times faster": ratio["this"] / ratio["other"],
    }


def read_result(path: Path) -> dict[str, Any]:
    """Returns what a run of the benchmarks has found: the last line of its output, or a file with that alone."""
    try:
        text = path.read_text(encoding="utf-8").strip()
        found = json.loads(text if text.startswith("{") else text.splitlines()[-1])
        if not isinstance(found["results"], dict):
            raise TypeError
        return dict(found)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        sys.exit(f"error: {path} is not a result: name a file with the output of python -m benchmarks.run")


def format_results(a: dict[str, Any], b: dict[str, Any]) -> str:
    """Returns a table of what both results have, with B / A, and what keeps their numbers from being compared."""
    lines = []
    for name in ("cpu", "cores", "gpu", "torch", "clock"):
        if a.get(name) != b.get(name):
            lines.append(f"not the same {name}: {a.get(name)} and {b.get(name)}; only ratios within one result compare")
    for which, result in (("A", a), ("B", b)):
        if busy := [
            f"{name} ({cores:.1f} cores)" for name, cores in result.get("busy_cores", {}).items() if cores > BUSY
        ]:
            lines.append(f"{which} was measured while other programs were busy: {', '.join(busy)}")
    lines.append(f"{'':<62}{'A':>12}{'B':>12}{'B / A':>9}")
    numbers = [dict(_numbers(result["results"])) for result in (a, b)]
    for key in (key for key in numbers[0] if key in numbers[1]):
        x, y = numbers[0][key], numbers[1][key]
        lines.append(f"{key:<62}{x:>12,.4g}{y:>12,.4g}{y / x if x else float('nan'):>9.3f}")
    return "\n".join(lines)


def _numbers(results: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in results.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key} | ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + key, value


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="another checkout of this project, or a result")
    parser.add_argument("second", type=Path, nargs="?", help="the result to compare the first one with")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is measured")
    parser.add_argument("--budget", type=float, default=8.0, help="seconds for each step and size in a round")
    given = parser.parse_args()
    if given.second is not None:
        print(format_results(read_result(given.other), read_result(given.second)))
        return
    if not (given.other / "benchmarks").is_dir():
        sys.exit(f"error: {given.other} is not a checkout with benchmarks: name the folder of one")
    found = compare(given.other.resolve(), given.rounds, given.budget)
    for size, results in found.items():
        print(size)
        for name, value in results.items():
            print(f"  {name:<32}{value}" if isinstance(value, list) else f"  {name:<32}{value:.4g}")
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    print(json.dumps({**hardware(device), "other": str(given.other), "rounds": given.rounds, "results": found}))


if __name__ == "__main__":
    main()
