"""Describes what a run would do, before its first step: `dry_run=true`.  Nothing is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from training import checkpoint
from training.checkpoint import list_checkpoints
from training.data import StepPlan
from training.launch.run import Run
from training.launch.table_plan import describe_tables, plan_tables
from training.launch.words import size_in_words
from training.metrics import cost_model
from training.metrics.cost_model import Memory, Workload
from training.state import TrainState

REACHED = (0.5, 0.2)
"""The fractions of a matrix product's speed that training steps were reported to reach: about half on an H100, a fifth
on an L4."""

REPLACED = (
    "config.yaml",
    "versions.json",
    "manifests.json",
    "report.html",
    "submission.json",
    "submission_kaggle.json",
)
"""Files of a run's folder that its next start or evaluation writes again."""


def describe_dry_run(run: Run, state: TrainState, plan: StepPlan, predictions: int = 0) -> str:
    """Returns the plan of a run, in lines.  Reads what the run would start from into `state`; collective.

    Args:
        predictions: examples that one evaluation predicts over all ranks; none in pretraining.

    Raises:
        InputError: where the run itself would refuse to start.
    """
    start = checkpoint.start_state(state, run.directory, run.identity)
    left = plan.total_steps - state.step
    lines = [
        "dry run: nothing is written",
        f"start      {start}",
        f"steps      {left} of {plan.total_steps}, {len(plan.interval_steps)} interval(s), "
        f"{run.config.global_batch_size} examples each on {run.world_size} rank(s)",
        *_memory(run, state, plan.total_steps),
        *describe_tables(state, run.directory, plan.total_steps),
        _time(run, state, left, predictions),
        _disk(run, state, plan),
        _folder(run.directory),
    ]
    return "\n".join(lines)


def device_memory(run: Run, state: TrainState) -> Memory:
    """Estimates the memory of one device of the run."""
    config, ranks = run.config, run.world_size
    slots = zip(state.carries, state.carries.expected_slots(), strict=True)
    moments = [] if state.optimizer is None else state.optimizer.state_dict().values()
    memory = cost_model.step_memory(
        config.arch,
        [Workload(bucket.canvas.cells, number / ranks) for bucket, number in slots],
        state.shape.num_puzzle_identifiers,
        ema=config.ema,
        ema_rows=config.ema and config.ema_puzzle_rows,
        recomputes=config.activation_checkpointing,
        vocab=state.shape.vocab_size,
        at_once=[Workload(bucket.canvas.cells, bucket.size / ranks) for bucket in state.carries],
        moments=sum(value.numel() * value.element_size() for value in moments),
        tasks=state.shape.num_task_rows or 0,
    )
    return replace(memory, puzzle_rows=plan_tables(state, 0).device)


def _memory(run: Run, state: TrainState, steps: int) -> list[str]:
    memory, rows = device_memory(run, state), plan_tables(state, steps)
    parts = ", ".join(f"{name.replace('_', ' ')} {size_in_words(value)}" for name, value in vars(memory).items())
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    host = state.num_bytes() + rows.copy + ranks_here * rows.host
    host += ranks_here * memory.total if run.device.type == "cpu" else 0
    line = f"memory     {size_in_words(memory.total)} per device, estimated ({parts}), without PyTorch's own"
    if run.device.type == "cuda":
        available = torch.cuda.get_device_properties(run.device).total_memory
        line += f"; the device has {size_in_words(available)}"
        if memory.total > 0.95 * available:
            line += ": set micro_batch_size, activation_checkpointing=true, or a smaller global_batch_size"
    return [line, f"host       {size_in_words(host)} on the first host, a checkpoint's copy included"]


def _time(run: Run, state: TrainState, steps: int, predictions: int) -> str:
    flop = device_flop(run, state, steps, predictions)
    speed = cost_model.matrix_product_flops(run.device, run.config.arch.dtype)
    least, most = (flop / (fraction * speed) / 3600 for fraction in REACHED)
    budget = getattr(run.config, "time_budget", None)
    return (
        f"time       {least:.2g} to {most:.2g} h, an estimate: {flop / 1e15:.3g} PFLOP per device at {REACHED[0]:.0%} "
        f"to {REACHED[1]:.0%} of a matrix product's {speed / 1e12:.3g} TFLOP/s, compilation not counted"
        + (f"; ended after {budget:g} minutes" if budget else "")
    )


def device_flop(run: Run, state: TrainState, steps: int, predictions: int) -> float:
    """Returns the FLOPs of one device in so many training steps and all evaluations."""
    config, arch, vocab = run.config, run.config.arch, state.shape.vocab_size
    slots = config.global_batch_size / run.world_size
    fractions: Sequence[float] = state.shape.fractions or (1.0,)
    workloads = [
        Workload(bucket.canvas.cells, slots * fraction)
        for bucket, fraction in zip(state.carries, fractions, strict=True)
    ]
    step = cost_model.step_flop(arch, workloads, config.activation_checkpointing, vocab)
    if state.optimizer is not None and state.optimizer.muon is not None:
        step += state.optimizer.muon.flop()  # each device makes all of it
    training = steps * step
    halts = getattr(config, "eval_halt_max_steps", None) or arch.halt_max_steps
    predicted = [Workload(state.shape.seq_len, predictions / run.world_size)]
    return training + max(1, config.num_intervals) * halts * cost_model.predict_flop(arch, predicted, vocab)


def _disk(run: Run, state: TrainState, plan: StepPlan) -> str:
    rows, rest = plan_tables(state, plan.total_steps), state.num_bytes()
    most = len(plan.interval_steps) + run.config.keep_last + 1  # one more while it is written
    needed = most * rest + rows.stored * (1 if rows.is_shared else most) + rows.disk
    existing = next(path for path in (run.directory.resolve(), *run.directory.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    short = "" if needed < free else ": lower keep_last or raise eval_interval"
    shared = ", which share their rows" if rows.is_shared and state.table is not None else ""
    return (
        f"disk       {size_in_words(rest + rows.stored)} a checkpoint, at most {most} at once{shared}; "
        f"{size_in_words(free)} are free{short}"
    )


def _folder(directory: Path) -> str:
    if not directory.exists():
        return f"folder     {directory} would be made"
    kept = len(list_checkpoints(directory))
    replaced = [name for name in REPLACED if (directory / name).exists()]
    return f"folder     {directory} exists: {kept} checkpoint(s) stay" + (
        f", {', '.join(replaced)} replaced" if replaced else ""
    )
