"""Describes what a run would do, before its first step: `dry_run=true`.  Nothing is written."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from training.optim.schedule import steps_at_depths
from training.state import TrainState
from utils.errors import SettingError

REACHED = (0.5, 0.2)
"""The fractions of a device's peak that training steps were reported to reach: about half on an H100, a fifth on an
L4."""

REPLACED = (
    "config.yaml",
    "versions.json",
    "manifests.json",
    "report.html",
    "submission.json",
    "submission_kaggle.json",
)
"""Files of a run's folder that its next start or evaluation writes again."""


@dataclass(frozen=True)
class Hardware:
    """The devices that a plan is for.

    ranks: how many.  flops: operations per second of one of them at best.  flops_of: what that is, in words.
    memory: bytes of one of them; None if it is not known.  name: what they are called; None for those of the command.
    """

    ranks: int
    flops: float
    flops_of: str
    memory: float | None
    name: str | None = None

    @classmethod
    def of(cls, run: Run) -> Hardware:
        """Returns what `dry_run_hardware` names, or else the devices of the run, of which one is measured.

        Raises:
            SettingError: if there are no such GPUs, or the batch does not divide by them.
        """
        named, dtype = run.config.dry_run_hardware, run.config.arch.dtype
        if named is None:
            speed = cost_model.matrix_product_flops(run.device, dtype)
            is_gpu = run.device.type == "cuda"
            memory = float(torch.cuda.get_device_properties(run.device).total_memory) if is_gpu else None
            return cls(run.world_size, speed, f"a matrix product's {speed / 1e12:.3g} TFLOP/s", memory)
        match = re.fullmatch(r"(?:(\d+) ?x ?)?(\D.*)", named.strip())
        ranks, gpu = (int(match[1] or 1), match[2]) if match else (0, "")
        peak = cost_model.by_name(cost_model.PEAK_FLOPS, gpu)
        if not ranks or peak is None:
            raise SettingError(
                f"dry_run_hardware={named} is not known: write a number and a GPU, such as 8 x H100, of "
                f"{', '.join(cost_model.PEAK_FLOPS)}"
            )
        if dtype != torch.bfloat16:
            raise SettingError(
                f"dry_run_hardware={named} is known in bfloat16 alone: leave it out with arch.forward_dtype="
                f"{run.config.arch.forward_dtype}"
            )
        if run.config.global_batch_size % ranks:
            raise SettingError(
                f"global_batch_size={run.config.global_batch_size} does not divide by dry_run_hardware={named}"
            )
        memory = cost_model.by_name(cost_model.MEMORY_GB, gpu)
        said = f"the {peak / 1e12:.3g} TFLOP/s of its data sheet"
        return cls(ranks, peak, said, None if memory is None else memory * 1e9, f"{ranks} x {gpu}")


def describe_dry_run(run: Run, state: TrainState, plan: StepPlan, predictions: int = 0) -> str:
    """Returns the plan of a run, in lines.  Reads what the run would start from into `state`; collective.

    Args:
        predictions: examples that one evaluation predicts over all ranks; none in pretraining.

    Raises:
        InputError: where the run itself would refuse to start.
    """
    hardware = Hardware.of(run)
    start = checkpoint.start_state(state, run.directory, run.identity)
    left = plan.total_steps - state.step
    lines = [
        "dry run: nothing is written",
        f"start      {start}",
        f"steps      {left} of {plan.total_steps}, {len(plan.interval_steps)} interval(s), "
        f"{run.config.global_batch_size} examples each on {hardware.ranks} rank(s)",
        *_memory(run, state, hardware, plan.total_steps),
        *describe_tables(state, run.directory, plan.total_steps),
        _time(run, state, left, predictions, hardware),
        _disk(run, state, plan),
        _folder(run.directory),
    ]
    return "\n".join(lines)


def device_memory(run: Run, state: TrainState, ranks: int) -> Memory:
    """Estimates the memory of one of `ranks` devices."""
    config = run.config
    slots = zip(state.carries, state.carries.expected_slots(), strict=True)
    moments = [] if state.optimizer is None else state.optimizer.state_dict().values()
    memory = cost_model.step_memory(
        config.arch,
        [Workload(bucket.canvas.cells, number / ranks) for bucket, number in slots],
        state.shape.num_puzzle_identifiers,
        ema=len(state.averages),
        ema_rows=config.ema and config.ema_puzzle_rows,
        recomputes=config.activation_checkpointing,
        vocab=state.shape.vocab_size,
        at_once=[Workload(bucket.canvas.cells, bucket.size / ranks) for bucket in state.carries],
        moments=sum(value.numel() * value.element_size() for value in moments),
        tasks=state.shape.num_task_rows or 0,
    )
    return replace(memory, puzzle_rows=plan_tables(state, 0).device)


def _memory(run: Run, state: TrainState, hardware: Hardware, steps: int) -> list[str]:
    memory, rows = device_memory(run, state, hardware.ranks), plan_tables(state, steps)
    parts = ", ".join(f"{name.replace('_', ' ')} {size_in_words(value)}" for name, value in vars(memory).items())
    line = f"memory     {size_in_words(memory.total)} per device, estimated ({parts}), without PyTorch's own"
    if hardware.memory is not None:
        line += f"; the device has {size_in_words(hardware.memory)}"
        if memory.total > 0.95 * hardware.memory:
            line += ": set micro_batch_size, activation_checkpointing=true, or a smaller global_batch_size"
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    on_cpu = run.device.type == "cpu" and hardware.name is None
    host = state.num_bytes() + rows.copy + ranks_here * rows.host + (ranks_here * memory.total if on_cpu else 0)
    return [line, f"host       {size_in_words(host)} on the first host, a checkpoint's copy included"]


def _time(run: Run, state: TrainState, steps: int, predictions: int, hardware: Hardware) -> str:
    flop = device_flop(run, state, steps, predictions, hardware.ranks)
    least, most = (flop / (fraction * hardware.flops) / 3600 for fraction in REACHED)
    budget = getattr(run.config, "time_budget", None)
    return (
        f"time       {least:.2g} to {most:.2g} h{f' on {hardware.name}' if hardware.name else ''}, an estimate: "
        f"{flop / 1e15:.3g} PFLOP per device at {REACHED[0]:.0%} to {REACHED[1]:.0%} of {hardware.flops_of}, "
        "compilation not counted" + (f"; ended after {budget:g} minutes" if budget else "")
    )


def device_flop(run: Run, state: TrainState, steps: int, predictions: int, ranks: int) -> float:
    """Returns the FLOPs of one of `ranks` devices in so many training steps and all evaluations."""
    config, arch, vocab = run.config, run.config.arch, state.shape.vocab_size
    slots = config.global_batch_size / ranks
    fractions: Sequence[float] = state.shape.fractions or (1.0,)
    workloads = [
        Workload(bucket.canvas.cells, slots * fraction)
        for bucket, fraction in zip(state.carries, fractions, strict=True)
    ]
    training = 0.0
    for depth, number in steps_at_depths(config.depth_curriculum, state.step, state.step + steps).items():
        deep = cost_model.at_depth(arch, depth)
        training += number * cost_model.step_flop(deep, workloads, config.activation_checkpointing, vocab)
    if state.optimizer is not None and state.optimizer.muon is not None:
        training += steps * state.optimizer.muon.flop()  # each device makes all of it
    halts = getattr(config, "eval_halt_max_steps", None) or arch.halt_max_steps
    predicted = [Workload(state.shape.seq_len, predictions / ranks)]
    return training + max(1, config.num_intervals) * halts * cost_model.predict_flop(arch, predicted, vocab)


def _disk(run: Run, state: TrainState, plan: StepPlan) -> str:
    rows, rest = plan_tables(state, plan.total_steps), state.num_bytes()
    most = len(plan.interval_steps) + run.config.keep_last + 1  # one more while it is written
    needed = most * rest + rows.stored * (1 if rows.is_shared else most) + rows.disk
    existing = next(path for path in (run.directory.resolve(), *run.directory.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    short = "" if needed < free else ": lower keep_last or raise eval_interval"
    if rest + rows.stored + rows.disk > free:
        short = ", not enough for one: choose a checkpoint_path on a larger disk, or a table that takes less"
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
