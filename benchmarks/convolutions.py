"""Measures what a convolution in the SwiGLU costs (`arch.mlp_conv`), in seconds of a training step:

    OMP_NUM_THREADS=1 python -m benchmarks.convolutions [--width 128] [--batch 64] [--side 10] [--eager] [--cpu-time]

The same network with each kind of convolution, and with none, is measured in turns, round by round, so that a busy
machine slows all alike.  Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.run import hardware
from benchmarks.timing import in_turns, use_cpu_time
from dataset.data_shape import DataShape
from dataset.sampling.joined import Batch
from models.arch import ArchConfig
from models.kernels.convolution import KERNELS
from training.config import PretrainConfig
from training.prepare.prepare import prepare
from training.state import TrainState
from training.step import train_step

KINDS = ("none", *KERNELS)
PREFIX, HEAD, VOCAB, PUZZLES = 4, 32, 12, 100


def step_of(kind: str, width: int, batch: int, side: int, compiled: bool, device: torch.device) -> Callable[[], None]:
    """Returns a training step on random examples of a canvas of side x side."""
    arch = ArchConfig(
        hidden_size=width,
        num_heads=width // HEAD,
        H_cycles=1,
        L_cycles=2,
        puzzle_emb_ndim=width,
        puzzle_emb_len=PREFIX,
        halt_max_steps=2,
        mlp_conv=kind,  # type: ignore[arg-type]
    )
    config = PretrainConfig(arch=arch, data_paths=["none"], global_batch_size=batch, ema=True, compile=compiled)
    state = prepare(TrainState(config, DataShape(VOCAB, side * side, PUZZLES, 0), device), compiled)
    rng = np.random.default_rng(0)
    inputs, labels = rng.integers(1, VOCAB, (2, batch, side * side)).astype(np.uint8)
    examples = Batch(inputs, labels, rng.integers(1, PUZZLES, batch).astype(np.int32))
    return lambda: train_step(state, examples, 10**6)


def measure(width: int, batch: int, side: int, compiled: bool, device: torch.device) -> dict[str, Any]:
    """Returns, for each kind, the median seconds of a step and the median of its ratios to the step without one."""
    steps = {kind: step_of(kind, width, batch, side, compiled, device) for kind in KINDS}
    times = in_turns(steps, device, least=10, budget=12.0)
    return {
        kind: {
            "seconds": statistics.median(found),
            "ratio": statistics.median(mine / plain for mine, plain in zip(found, times["none"], strict=True)),
            "rounds": len(found),
        }
        for kind, found in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convolutions", description=__doc__)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=10)
    parser.add_argument("--eager", action="store_true", help="without compilation")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of one thread, where others use the CPU too")
    given = parser.parse_args()
    if given.cpu_time:
        use_cpu_time()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    found = measure(given.width, given.batch, given.side, not given.eager, device)
    for kind, values in found.items():
        print(f"{kind:10} {values['seconds']:.3f} s  {values['ratio']:.3f} times the step without a convolution")
    print(json.dumps({"benchmark": "convolutions", **vars(given), "hardware": hardware(device), "results": found}))


if __name__ == "__main__":
    main()
