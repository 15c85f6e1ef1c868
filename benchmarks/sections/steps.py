"""Measures training step and prediction at several sizes, eager and compiled, beside the plain reference."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from adam_atan2_pytorch import AdamAtan2
from torch import Tensor

from benchmarks.sections.ceilings import matmul_flops
from benchmarks.sections.reference import ReferenceTRM
from benchmarks.timing import in_turns, once, seconds
from dataset.data_shape import DataShape
from dataset.sampling.joined import Batch
from models.act import initial_carry, refill
from models.arch import ArchConfig
from models.losses import stablemax_nll
from training.config import TrainConfig
from training.metrics import cost_model
from training.metrics.cost_model import Workload
from training.prepare.precision import computes_bfloat16
from training.prepare.prepare import prepare
from training.state import TrainState
from training.step import to_slots, train_step

PUZZLES = 1000


class Size(NamedTuple):
    """name, width, heads, H_cycles, L_cycles, prefix, cells, examples per step, activations computed again or not;
    dtype of the passes."""

    name: str
    D: int
    heads: int
    H: int
    L: int
    prefix: int
    cells: int
    B: int
    recomputes: bool = False
    dtype: Literal["bfloat16", "float32"] = "bfloat16"


SMALL = [Size("demo", 128, 4, 1, 2, 2, 36, 64), Size("D128 900 cells", 128, 4, 2, 2, 16, 900, 4)]
PUBLISHED = [Size(f"published B{B}", 512, 8, 3, 4, 16, 900, B) for B in (96, 384, 768)]
PUBLISHED += [Size(f"published B{B} recomputing", 512, 8, 3, 4, 16, 900, B, True) for B in (384, 768)]


NVARC_FINETUNE = Size("fine-tuning as NVARC B128", 512, 8, 4, 4, 16, 900, 128)


def sizes(device: torch.device) -> list[Size]:
    """Returns what is measured on a device: in float32, with a name that says so, if it has no bfloat16."""
    chosen = PUBLISHED if device.type == "cuda" else SMALL
    if computes_bfloat16(device):
        return chosen
    return [size._replace(name=f"{size.name}, float32", dtype="float32") for size in chosen]


def flop_per_step(size: Size) -> float:
    return cost_model.step_flop(arch_of(size), [Workload(size.cells, size.B)])


def predicted_bytes(size: Size) -> float:
    """Returns the memory that a step takes by the model of the cost."""
    workload = Workload(size.cells, size.B)
    return cost_model.step_memory(arch_of(size), [workload], PUZZLES, recomputes=size.recomputes).total


def arch_of(size: Size) -> ArchConfig:
    return ArchConfig(
        hidden_size=size.D,
        num_heads=size.heads,
        H_cycles=size.H,
        L_cycles=size.L,
        puzzle_emb_ndim=size.D,
        puzzle_emb_len=size.prefix,
        halt_max_steps=16,
        forward_dtype=size.dtype,
    )


def batch_of(size: Size, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, 12, (size.B, size.cells)).astype(np.uint8)
    labels = rng.integers(0, 12, (size.B, size.cells)).astype(np.uint8)
    return Batch(inputs, labels, rng.integers(1, PUZZLES, size.B).astype(np.int32))


def state_of(size: Size, device: torch.device, compiled: bool) -> TrainState:
    config = TrainConfig(
        arch=arch_of(size),
        global_batch_size=size.B,
        ema=True,
        compile=compiled,
        epochs=1,
        activation_checkpointing=size.recomputes,
    )
    return prepare(TrainState(config, DataShape(12, size.cells, PUZZLES, 0), device), compiled)


def ours(size: Size, device: torch.device, compiled: bool, share: float = 1.0) -> Callable[[], None]:
    """Returns our training step as a function.

    Args:
        share: the fraction of the batch that this rank computes.
    """
    state = state_of(size, device, compiled)
    batch = batch_of(size._replace(B=round(share * size.B)))
    return lambda: train_step(state, batch, total_steps=10**6)


class ReferenceStep:
    """A step of the published trainer, written plainly.

    Refill, recursion with a cast at each use, stablemax, backward, rows by unique identifier, the packaged optimizer,
    the average weight by weight.
    """

    def __init__(self, size: Size, device: torch.device, compiled: bool) -> None:
        source = state_of(size, torch.device("cpu"), compiled=False)
        self.model = ReferenceTRM(source.config.arch, source.network.state_dict(), size.cells).to(device)
        self.trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = AdamAtan2(self.trainable, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
        self.average = [p.detach().clone() for p in self.trainable]
        self.table = torch.zeros(PUZZLES, size.D, device=device)
        batch = batch_of(size)
        self.inputs, self.labels, self.ids = (
            torch.from_numpy(array).long().to(device)
            for array in (batch.inputs, batch.labels, batch.puzzle_identifiers)
        )
        S, dtype = size.prefix + size.cells, source.config.arch.dtype
        self.z = [torch.zeros(size.B, S, size.D, dtype=dtype, device=device) for _ in range(2)]
        self.halted = torch.ones(size.B, dtype=torch.bool, device=device)
        self.B = size.B
        self.forward: Callable[..., tuple[Tensor, ...]] = (
            torch.compile(self._forward, dynamic=False) if compiled else self._forward
        )

    def _forward(self, z_H: Tensor, z_L: Tensor, halted: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        shape = (-1, 1, 1)
        z_H = torch.where(halted.view(shape), self.model.weight("H_init").to(z_H.dtype), z_H)
        z_L = torch.where(halted.view(shape), self.model.weight("L_init").to(z_L.dtype), z_L)
        z_H, z_L, logits, q = self.model(z_H, z_L, self.inputs, rows)
        mask = self.labels != 0
        counts = mask.sum(-1)
        lm = (torch.where(mask, stablemax_nll(logits, self.labels), 0) / counts.clamp(min=1)[:, None]).sum()
        exact = ((logits.argmax(-1) == self.labels) & mask).sum(-1) == counts
        q_loss = torch.nn.functional.binary_cross_entropy_with_logits(q[:, 0], exact.to(q.dtype), reduction="sum")
        return z_H, z_L, lm + 0.5 * q_loss, q[:, 0] > 0

    def __call__(self) -> None:
        rows = self.table[self.ids].requires_grad_()
        z_H, z_L, loss, halted = self.forward(*self.z, self.halted, rows)
        self.z, self.halted = [z_H, z_L], halted
        (loss / self.B).backward()
        unique, inverse = self.ids.unique(return_inverse=True)
        assert rows.grad is not None
        summed = torch.zeros(len(unique), rows.shape[1], device=rows.device).index_add_(0, inverse, rows.grad)
        self.table[unique] = self.table[unique] * (1 - 1e-2 * 0.1) - 1e-2 * summed.sign()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for average, p in zip(self.average, self.trainable, strict=True):
                average.mul_(0.999).add_(p, alpha=0.001)


BUILDERS: dict[str, Callable[[Size, torch.device, bool], Callable[[], None]]] = {
    "reference": ReferenceStep,
    "ours": ours,
}


def measure(device: torch.device) -> dict[str, Any]:
    """Measures whole steps.  On a CPU ours and the reference take turns; a GPU has room for one of them at a time."""
    ceiling = matmul_flops(device, getattr(torch, sizes(device)[0].dtype))
    found: dict[str, Any] = {}
    for size in sizes(device):
        for compiled in (False, True):
            found |= measure_size(size, device, compiled, ceiling)
    return found


def measure_size(size: Size, device: torch.device, compiled: bool, ceiling: float) -> dict[str, Any]:
    """Measures the step of one size.

    Args:
        ceiling: the operations per second of a large matrix product.
    """
    found: dict[str, Any] = {}
    how = "compiled" if compiled else "eager"
    if device.type == "cuda":
        times = _one_by_one(size, device, compiled, found)
    else:
        times = in_turns({name: build(size, device, compiled) for name, build in BUILDERS.items()}, device)
    for name, spent in times.items():
        found[f"{size.name}: {name} {how}, s"] = statistics.median(spent)
        found[f"{size.name}: {name} {how}, least s"] = min(spent)
        found[f"{size.name}: {name} {how}, example-steps/s"] = size.B / statistics.median(spent)
    if len(times) == len(BUILDERS):
        ratios = [theirs / mine for theirs, mine in zip(times["reference"], times["ours"], strict=False)]
        found[f"{size.name}: reference / ours, {how}"] = statistics.median(ratios)
        found[f"{size.name}: reference / ours, {how}, best"] = min(times["reference"]) / min(times["ours"])
    if compiled and "ours" in times:
        speed = flop_per_step(size) / statistics.median(times["ours"])
        found[f"{size.name}: ours compiled, TFLOP/s"] = speed / 1e12
        found[f"{size.name}: share of the matrix product"] = speed / ceiling
    return found


def _one_by_one(size: Size, device: torch.device, compiled: bool, found: dict[str, Any]) -> dict[str, list[float]]:
    times = {}
    for name, build in BUILDERS.items():
        key = f"{size.name}: {name} {'compiled' if compiled else 'eager'}, peak GB"
        torch.cuda.reset_peak_memory_stats(device)
        try:
            times[name] = in_turns({name: build(size, device, compiled)}, device)[name]
            found[key] = torch.cuda.max_memory_allocated(device) / 1e9
        except torch.OutOfMemoryError:
            found[key] = "out of memory"
    return times


def measure_parts(device: torch.device) -> dict[str, Any]:
    """Measures the parts of a compiled step one by one."""
    found: dict[str, Any] = {}
    for size in sizes(device)[:2]:
        state = state_of(size, device, compiled=True)
        optimizer, ema = state.optimizer, state.ema
        assert optimizer is not None and ema is not None
        slots, ok = to_slots(batch_of(size), device), torch.tensor(True, device=device)
        carry = refill(initial_carry(state.network, slots), slots, state.network.initial_latents())
        rows = torch.zeros(size.B, size.D, device=device).requires_grad_()
        state.act_step.train()
        spent: dict[str, list[float]] = {"forward": [], "backward": [], "optimizer": [], "EMA": []}
        for round in range(8):
            loss: list[Tensor] = []
            parts = {
                "forward": lambda: loss.append(state.act_step(carry, rows)[1]),  # noqa: B023
                "backward": lambda: loss[0].backward(),  # noqa: B023
                "optimizer": lambda: optimizer.step(1e-4, ok),  # noqa: B023
                "EMA": lambda: ema.update(ok),  # noqa: B023
            }
            for name, part in parts.items():
                took = once(part, device)
                if round > 1:
                    spent[name].append(took)
        found |= {f"{size.name}: {name}, s": statistics.median(times) for name, times in spent.items()}
    return found


def measure_prediction(device: torch.device) -> dict[str, Any]:
    """Measures one ACT step of prediction, the network alone."""
    found: dict[str, Any] = {}
    for size in sizes(device)[:2]:
        state = state_of(size, device, compiled=True)
        batch = batch_of(size)
        inputs = torch.from_numpy(batch.inputs).to(device)
        latents = state.network.empty_latents(size.B, size.cells, device)
        rows = torch.zeros(size.B, size.D, device=device)
        with torch.inference_mode():
            spent = seconds(lambda: state.predict_step(latents, inputs, rows), device)  # noqa: B023
        found[f"{size.name}: one step, example-steps/s"] = size.B / spent
    return found


def profile(device: torch.device, path: str) -> None:
    """Writes a trace of three compiled steps and prints what takes the time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    step = ours(sizes(device)[0], device, compiled=True)
    seconds(step, device, budget=1.0)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with record(activities=activities) as trace:
        for _ in range(3):
            step()
    trace.export_chrome_trace(path)
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(trace.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=60))
