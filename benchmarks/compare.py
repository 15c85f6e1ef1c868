"""Compares the compiled training step of this checkout with that of another, each measured by its own code:

    python -m benchmarks.compare OTHER_CHECKOUT [--rounds 2]

The checkouts take turns (other, this, other, this, ..), each time in a process of its own, so that a busy machine slows
both alike.  Every process also measures the plain reference (benchmarks/reference.py).  What is compared is how many
times faster than the reference each checkout is: absolute times of shared machines do not compare.

A table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.run import hardware

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


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="another checkout of this project, with its benchmarks")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is measured")
    parser.add_argument("--budget", type=float, default=8.0, help="seconds for each step and size in a round")
    given = parser.parse_args()
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
