"""Measures what this project claims of GPUs, unattended, in at most 25 minutes: `make gpu-report`, or

    python -m benchmarks.gpu_report [--output FILE] [--small]
    python -m benchmarks.gpu_report --show FILE

Leaves one file to commit under benchmarks/results, which it completes part by part, and prints it as a table.  Each
part runs in a process of its own within a time limit: a part that fails or takes too long is recorded as such, with
what it has measured until then, and the next one begins.  `--small` tries all of it at small sizes, also on a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_report.parts import PARTS, SMALL, Part, published
from benchmarks.run import hardware
from benchmarks.sections import operations, products
from utils.cli import command
from utils.errors import InputError
from utils.files import write_atomically

RESULTS = Path("benchmarks", "results")
MOST_SECONDS = 25 * 60
LEAST_SECONDS = 10
"""A part that has less than this is left out."""

MARK = "RESULT "
TABLES = {"products": products.table, "operations": operations.table}


def run_part(words: Sequence[str], limit: float) -> dict[str, Any]:
    """Runs a part as a process; returns its outcome, its seconds, and what it has measured.

    Args:
        limit: seconds after which the process and its children are ended.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(limit)
            outcome = "done" if status == 0 else f"failed with status {status}"
        except subprocess.TimeoutExpired:
            outcome = f"stopped after {limit:.0f} s"
        finally:
            _end(process)
        said.seek(0)
        lines = said.read().splitlines()
    results: dict[str, Any] = {}
    for line in lines:
        if line.startswith(MARK):
            results |= json.loads(line.removeprefix(MARK))
    found = {"outcome": outcome, "seconds": round(time.monotonic() - started, 1), "results": results}
    if outcome != "done":
        found["said"] = "\n".join(line for line in lines if not line.startswith(MARK))[-2000:]
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and its children."""
    with contextlib.suppress(ProcessLookupError):  # all of them have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def report(
    output: Path, parts: Mapping[str, Part], arguments: Sequence[str] = (), most_seconds: float = MOST_SECONDS
) -> dict[str, Any]:
    """Runs all parts one after the other, and writes the file after each.

    Args:
        arguments: what the process of each part gets besides the part's name.
    """
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    found: dict[str, Any] = {**hardware(device), **_about(device), "parts": {}}
    until = time.monotonic() + most_seconds
    for name, part in parts.items():
        left = until - time.monotonic()
        if left < LEAST_SECONDS:
            found["parts"][name] = {"outcome": "left out: the time is up", "seconds": 0.0, "results": {}}
        else:
            words = [sys.executable, "-m", "benchmarks.gpu_report", "--part", name, *arguments]
            found["parts"][name] = run_part(words, min(left, part.limit))
        about = found["parts"][name]
        print(f"{name}: {about['outcome']} ({about['seconds']:.0f} s)", flush=True)
        write_atomically(output, json.dumps(found, indent=1) + "\n")
    return found


def _about(device: torch.device) -> dict[str, Any]:
    """Returns what the results depend on besides `hardware`."""
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu memory, GB": properties.total_memory / 1e9,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "gpus": torch.cuda.device_count(),
    }


def table(found: Mapping[str, Any]) -> str:
    """Returns a report as Markdown."""
    about = ", ".join(f"{key} {value}" for key, value in found.items() if key != "parts" and value is not None)
    lines = [about]
    for name, part in found["parts"].items():
        lines += ["", f"## {name}: {part['outcome']} ({part['seconds']:.0f} s)", ""]
        results = part["results"]
        if results and name in TABLES:
            lines.append(TABLES[name](results))
        elif results:
            lines += ["| what | value |", "|---|---|"]
            lines += [f"| {key} | {_shown(value)} |" for key, value in results.items()]
        if part.get("said"):
            lines += ["", "```", part["said"], "```"]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def default_output(small: bool, today: date) -> Path:
    """Returns a file that is not there yet, so that a second report of a day keeps the first."""
    if small:
        return Path("runs", "gpu_report_small.json")
    name = re.sub(r"\W+", "_", torch.cuda.get_device_name(0).lower()).strip("_")
    named = (f"{today}_gpu_{name}{suffix}.json" for suffix in ("", *(f"_{i}" for i in range(2, 1000))))
    return next(path for path in (RESULTS / name for name in named) if not path.exists())


def read_report(path: Path) -> dict[str, Any]:
    """Reads a report.

    Raises:
        InputError: if the file is missing, or is not a report.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"--show {path}: there is no such file; reports lie under {RESULTS}") from None
    except ValueError as error:
        raise InputError(f"--show {path}: the file is not JSON ({error}); name one that this program wrote") from None
    if not isinstance(found, dict) or not isinstance(found.get("parts"), dict):
        raise InputError(f"--show {path}: the file has no parts; name one that this program wrote")
    return found


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, help="the file; default: benchmarks/results/DATE_gpu_NAME.json")
    parser.add_argument("--small", action="store_true", help="small sizes, on a GPU or a CPU")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of a report")
    parser.add_argument("--part", choices=PARTS, help="measure one part, in this process, and print its results")
    given = parser.parse_args()
    if given.show:
        print(table(read_report(given.show)))
        return
    if not torch.cuda.is_available() and not given.small:
        raise InputError("there is no CUDA device: run this where there is one, or add --small to try it on the CPU")
    if given.part:
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        for results in PARTS[given.part].measure(SMALL if given.small else published(device), device):
            print(MARK + json.dumps(results), flush=True)
        return
    output = given.output or default_output(given.small, date.today())
    output.parent.mkdir(parents=True, exist_ok=True)
    found = report(output, PARTS, ["--small"] if given.small else [])
    print(f"\n{table(found)}\n\nwritten: {output}")


if __name__ == "__main__":
    main()
