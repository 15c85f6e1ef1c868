"""Building and reading data sets: ARC-AGI-2 as embedded, 1000 augmentations."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.sampling.sampler import BatchSampler
from dataset.storage import open_split


def wait_for_batches(sampler: BatchSampler, steps: int = 20, step_seconds: float = 0.1) -> float:
    """Returns how long a step of `step_seconds` waits for its batch: the median of some steps after the first."""
    waited = []
    with closing(sampler.stream(0)) as batches:
        for _ in range(steps):
            started = time.perf_counter()
            next(batches)
            waited.append(time.perf_counter() - started)
            time.sleep(step_seconds)
    return statistics.median(waited[1:])


def measure(device: torch.device) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set"
        command = [sys.executable, "build_dataset.py", "--output-dir", str(target)]
        subprocess.run(
            [*command[:2], "--num-aug", "1", "--output-dir", str(target) + "-first"], check=True, capture_output=True
        )
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        built = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        split = open_split(target, "train")
        rng = np.random.default_rng(0)
        split.read(rng.integers(0, split.num_examples, 1000), np.arange(1000, dtype=np.uint64))
        best = float("inf")
        for _ in range(8):
            examples = rng.integers(0, split.num_examples, 50_000)
            seeds = rng.integers(0, 2**63, 50_000).astype(np.uint64)
            started = time.perf_counter()
            split.read(examples, seeds)
            best = min(best, time.perf_counter() - started)
        sampler = BatchSampler([split], 768, 100, seed=0)
        started = time.perf_counter()
        steps = sampler.num_steps(0)
        planned = time.perf_counter() - started
        waited = wait_for_batches(sampler)  # after the planning, which is done once
    return {
        "build ARC-AGI-2 compact, process s": built,
        "peak memory, MB": peak / 1e3,
        "on disk, MB": size / 1e6,
        "random examples read on one core, 1/s": 50_000 / best,
        "wait for a batch of 768 at steps of 0.1 s, s": waited,
        "plan 100 epochs, s": planned,
        "steps planned": steps,
    }
