"""Measures the first minute: how long the scripts take to load, and how long until a training has made a step."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from demo import BUILD, PRETRAIN

SCRIPTS = ("build_dataset", "pretrain_no_eval", "eval_arc_k10")

LOADED = "training.loop, training.prepare.prepare, training.launch.run"
"""What a training imports before it reads data."""

NAMED = ("torch", "numba", "pydantic", "hydra", "numpy", "adam_atan2_pytorch")
"""Packages whose part of the import time is told."""

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")
"""Where compiled code is kept."""

WAYS = {"as make demo has it": (), "compiled": ("compile=true",)}
"""The demonstration compiles nothing of PyTorch's, other recipes do."""

MOST_SECONDS = 300.0


def measure(device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {f"{name}.py --help, s": _seconds([f"{name}.py", "--help"]) for name in SCRIPTS}
    found["imports of a training, s"] = _seconds(["-c", f"import {LOADED}"])
    found |= {f"imports, of which {name}, s": part for name, part in import_times(LOADED).items()}
    with tempfile.TemporaryDirectory() as scratch:
        data, caches = Path(scratch, "data"), Path(scratch, "caches")
        build = [word for word in BUILD if not word.startswith("--output-dir")]
        _run([*build, f"--output-dir={data}"])
        command = [*PRETRAIN, f"data_paths=[{data}]", f"checkpoint_path={scratch}/run", "log_every=1"]
        for way, words in WAYS.items():
            environment = {name: str(caches / way / name) for name in CACHES}
            for how in ("nothing kept from before", "again", "a third time"):
                shutil.rmtree(Path(scratch, "run"), ignore_errors=True)
                seconds = first_step([*command, *words], Path(scratch, "run"), environment)
                found[f"first step, {way}, {how}, s"] = seconds
    return found


def _seconds(words: Sequence[str]) -> float:
    """Returns the shortest time of a Python program, of two."""
    spent = []
    for _ in range(2):
        started = time.perf_counter()
        _run(words)
        spent.append(time.perf_counter() - started)
    return min(spent)


def _run(words: Sequence[str]) -> str:
    """Runs a Python program and returns what it said on stderr.

    Raises:
        RuntimeError: with that, if it fails.
    """
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"python {' '.join(words)} failed: {done.stderr[-500:]}")
    return done.stderr


def import_times(modules: str) -> dict[str, float]:
    """Returns the seconds that each of the packages `NAMED` takes when these modules are imported, the largest first.

    A package that another one imports counts within that one too.
    """
    return parse_import_times(_run(["-X", "importtime", "-c", f"import {modules}"]))


def parse_import_times(report: str) -> dict[str, float]:
    """Reads the report of `python -X importtime`."""
    line = re.compile(r"import time:\s+\d+ \|\s+(\d+) \|\s+(\S+)")
    every = {match[2]: int(match[1]) / 1e6 for match in map(line.match, report.splitlines()) if match}
    found = {name: every[name] for name in NAMED if name in every}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def first_step(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> float:
    """Starts a training and returns the seconds until its log has a line, which is after its first step.

    Args:
        folder: of the run; the training is ended and leaves it as it is.

    Raises:
        RuntimeError: if it ends before, or takes longer than `MOST_SECONDS`.
    """
    started = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [sys.executable, *command], stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        ) as training,
    ):
        try:
            while not _has_line(folder / "metrics.jsonl"):
                if training.poll() is not None or time.perf_counter() - started > MOST_SECONDS:
                    said.seek(0)
                    raise RuntimeError(f"{' '.join(command)} made no step: {said.read()[-500:]}")
                time.sleep(0.02)
            return time.perf_counter() - started
        finally:
            training.kill()


def _has_line(path: Path) -> bool:
    return path.is_file() and any('"lm_loss"' in line for line in path.read_text(encoding="utf-8").splitlines())
