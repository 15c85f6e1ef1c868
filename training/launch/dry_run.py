"""What a run would do, said before its first step: `dry_run=true`.  Nothing is written."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from models.arch import ArchConfig
from training import checkpoint, cost_model
from training.checkpoint import list_checkpoints
from training.cost_model import Part
from training.launch.run import Run
from training.optim.schedule import Plan
from training.state import TrainState

SHARES = (0.5, 0.2)
"""Of a matrix product's speed, what training steps were reported to reach: about half on an H100, a fifth on an L4."""

REPLACED = (
    "config.yaml",
    "versions.json",
    "manifests.json",
    "report.html",
    "submission.json",
    "submission_kaggle.json",
)
"""Files of a run's folder that its next start or evaluation writes anew."""


def describe_dry_run(run: Run, state: TrainState, plan: Plan, predictions: int = 0) -> str:
    """The plan of a run, in lines.  Reads what the run would start from into `state`; collective.

    Args:
        predictions: examples that one evaluation predicts over all ranks; none in pretraining.

    Raises:
        ValueError: where the run itself would refuse to start.
    """
    cells = state.shape.seq_len
    slots = run.config.global_batch_size / run.world_size
    shares = state.shape.shares or (1.0,)
    parts = [Part(lane.canvas.cells, slots * share) for lane, share in zip(state.lanes, shares, strict=True)]
    there = zip(state.lanes, state.lanes.expected(), strict=True)
    held = [Part(lane.canvas.cells, number / run.world_size) for lane, number in there]
    said = checkpoint.start_state(state, run.directory, run.identity)
    left = plan.total_steps - state.step
    lines = [
        "dry run: nothing is written",
        f"start      {said}",
        f"steps      {left} of {plan.total_steps}, {len(plan.interval_steps)} interval(s), "
        f"{run.config.global_batch_size} examples each on {run.world_size} rank(s)",
        *_memory(run, held, state),
        _time(run, parts, left, [Part(cells, predictions)]),
        _disk(run, state, held, len(plan.interval_steps)),
        _folder(run.directory),
    ]
    return "\n".join(lines)


def _reckoned(run: Run, parts: Sequence[Part], state: TrainState) -> cost_model.Memory:
    """The memory of a device with these parts under the run's settings."""
    config = run.config
    return cost_model.step_memory(
        config.arch,
        parts,
        state.shape.num_puzzle_identifiers,
        ema=config.ema,
        ema_rows=config.ema and config.ema_puzzle_rows,
        recomputes=config.activation_checkpointing,
        vocab=state.shape.vocab_size,
        at_once=[Part(lane.canvas.cells, lane.chunk_size / run.world_size) for lane in state.lanes],
    )


def _memory(run: Run, parts: Sequence[Part], state: TrainState) -> list[str]:
    memory = _reckoned(run, parts, state)
    shares = ", ".join(f"{name.replace('_', ' ')} {value / 1e9:.2f}" for name, value in vars(memory).items())
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    host = memory.saved + (ranks_here * memory.total if run.device.type == "cpu" else 0)
    lines = [f"memory     {memory.total / 1e9:.2f} GB per device, reckoned ({shares}), PyTorch's own not counted"]
    if run.device.type == "cuda":
        there = torch.cuda.get_device_properties(run.device).total_memory
        lines[0] += f"; the device has {there / 1e9:.0f} GB"
        if memory.total > 0.95 * there:
            lines[0] += ": set micro_batch_size, activation_checkpointing=true, or a smaller global_batch_size"
    return [*lines, f"host       {host / 1e9:.2f} GB on the first host, a checkpoint's copy included"]


def _time(run: Run, parts: Sequence[Part], steps: int, predictions: Sequence[Part]) -> str:
    config, arch = run.config, run.config.arch
    speed = matrix_product_flops(run.device, arch)
    flop = steps * cost_model.step_flop(arch, parts, config.activation_checkpointing)
    halts = getattr(config, "eval_halt_max_steps", None) or arch.halt_max_steps
    flop += max(1, config.num_intervals) * halts * cost_model.predict_flop(arch, predictions) / run.world_size
    least, most = (flop / (share * speed) / 3600 for share in SHARES)
    budget = getattr(config, "time_budget", None)
    return (
        f"time       {least:.2g} to {most:.2g} h, an estimate: {flop / 1e15:.3g} PFLOP per device at {SHARES[0]:.0%} "
        f"to {SHARES[1]:.0%} of a matrix product's {speed / 1e12:.3g} TFLOP/s, compilation not counted"
        + (f"; ended after {budget:g} minutes" if budget else "")
    )


def matrix_product_flops(device: torch.device, arch: ArchConfig, seconds: float = 1.0) -> float:
    """FLOP/s of square matrix products in the working dtype, the best of those that fit into so many seconds."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.ones(n, n, device=device, dtype=arch.dtype) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until or best == float("inf"):
        started = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


def _disk(run: Run, state: TrainState, parts: Sequence[Part], intervals: int) -> str:
    config = run.config
    everywhere = [Part(cells, examples * run.world_size) for cells, examples in parts]
    memory = _reckoned(run, everywhere, state)
    size = memory.weights / 2 + memory.moments + memory.average + memory.puzzle_rows + memory.carry / 2
    most = intervals + config.keep_last + 1  # one more while it is written
    existing = next(path for path in (run.directory.resolve(), *run.directory.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    short = "" if most * size < free else ": lower keep_last or raise eval_interval"
    return f"disk       {size / 1e9:.2f} GB a checkpoint, at most {most} at once; {free / 1e9:.1f} GB are free{short}"


def _folder(directory: Path) -> str:
    if not directory.exists():
        return f"folder     {directory} would be made"
    kept = len(list_checkpoints(directory))
    replaced = [name for name in REPLACED if (directory / name).exists()]
    return f"folder     {directory} exists: {kept} checkpoint(s) stay" + (
        f", {', '.join(replaced)} replaced" if replaced else ""
    )
