"""Measures where the time of a compiled training step goes, by kind of operation."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.sections import steps
from benchmarks.sections.steps import Size
from benchmarks.timing import synchronise
from training.step import train_step

STEPS = 10

UPDATE, REST = "optimizer and average", "the rest"

KINDS: dict[str, Sequence[Sequence[str]]] = {
    "matrix products": [["aten::mm"], ["aten::addmm"], ["gemm"], ["cutlass"], ["nvjet"]],
    "attention": [["trm::attend"], ["aten::bmm"], ["softmax"], ["scaled_dot_product"], ["flash"], ["fmha"], ["sdpa"]],
    "SwiGLU's gating": [["fused", "silu"]],
    "loss": [["fused", "argmax"], ["fused", "_le_"], ["fused", "log"]],
    "rotation": [["fused", "cat", "neg"]],
    "norms and additions": [["fused", "rsqrt"], ["fused", "pow_sum"]],
    "embedding": [["fused", "constant_pad_nd"], ["fused", "one_hot"], ["fused", "embedding"]],
    UPDATE: [["atan2"], ["foreach"], ["lerp"]],
}
"""How the kinds of operation are told from the name of an operator or a kernel: it has all the words of one entry.  The
first kind that fits counts.  The compiler names a kernel by the operators that it has fused, so a residual addition
counts with the norm behind it, and a cast with what it is cast for."""


class Operation(NamedTuple):
    """The name of an operator or kernel, its own seconds, and whether it is a part of the optimizer's update."""

    name: str
    seconds: float
    updates: bool = False


def kind_of(operation: Operation) -> str:
    """Returns the kind of an operation: one of `KINDS`, or `REST`."""
    if operation.updates:
        return UPDATE
    name = operation.name.lower()
    return next(
        (kind for kind, any_of in KINDS.items() if any(all(w in name for w in words) for words in any_of)), REST
    )


def by_kind(operations: Iterable[Operation], total: float) -> dict[str, float]:
    """Returns the seconds of each kind.  They add up to `total`: what no operation has taken is in `REST`."""
    found: dict[str, float] = defaultdict(float)
    for operation in operations:
        found[kind_of(operation)] += operation.seconds
    found[REST] += total - sum(found.values())
    return {kind: found[kind] for kind in (*KINDS, REST)}


def record(step: Callable[[], None], device: torch.device) -> tuple[list[Operation], float]:
    """Returns the operations of the shortest of `STEPS` steps, and its seconds."""
    return min((_record_once(step, device) for _ in range(STEPS)), key=lambda recorded: recorded[1])


def _record_once(step: Callable[[], None], device: torch.device) -> tuple[list[Operation], float]:
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as trace:
        started = time.perf_counter()  # by the clock, as the profiler measures
        step()
        synchronise(device)
        seconds = time.perf_counter() - started
    found = []
    for event in trace.events() or []:
        is_kernel = event.device_type != torch.autograd.DeviceType.CPU
        is_range = is_kernel and getattr(event, "is_user_annotation", False)  # has kernels in it that count
        if is_kernel == on_gpu and not is_range:
            microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            found.append(Operation(event.name, microseconds / 1e6, _has_parent(event, UPDATE)))
    return found, seconds


def _has_parent(event: Any, name: str) -> bool:
    while event is not None:
        if event.name == name:
            return True
        event = event.cpu_parent
    return False


def profiled_step(size: Size, device: torch.device, compiled: bool) -> Callable[[], None]:
    """Returns a step whose kernels and whose update have names in a profile."""
    state = steps.state_of(size, device, compiled)
    batch = steps.batch_of(size)
    assert state.optimizer is not None and state.ema is not None
    if device.type == "cpu":  # on a GPU kernels have names, and belong to no Python function
        for owner, method in ((state.optimizer, "step"), (state.ema, "update")):
            setattr(owner, method, _named(getattr(owner, method)))

    def step() -> None:
        train_step(state, batch, total_steps=10**6)

    def with_names() -> None:
        with torch._inductor.config.patch({"cpp.enable_kernel_profile": True}):
            step()

    return with_names if compiled else step


def _named(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        with record_function(UPDATE):
            return function(*arguments, **named)

    return call


def measure(device: torch.device, sizes: Sequence[Size] | None = None, compiled: bool = True) -> dict[str, Any]:
    """Measures steps of some sizes, by default one after the other those of the section `step`."""
    found: dict[str, Any] = {}
    for size in sizes or steps.sizes(device)[:2]:
        torch._dynamo.reset()
        step = profiled_step(size, device, compiled)
        for _ in range(3):
            step()
        operations, total = record(step, device)
        found[f"{size.name}: step, ms"] = 1e3 * total
        for kind, seconds in by_kind(operations, total).items():
            found[f"{size.name}: {kind}, ms"] = 1e3 * seconds
            found[f"{size.name}: {kind}, %"] = 100 * seconds / total
    return found


def table(found: dict[str, Any]) -> str:
    """Returns the results as a table in Markdown, a row for each kind of operation."""
    names = [key.removesuffix(": step, ms") for key in found if key.endswith(": step, ms")]
    lines = [
        "| operation | " + " | ".join(f"{name}, ms | share" for name in names) + " |",
        "|---" * (1 + 2 * len(names)) + "|",
    ]
    for kind in (*KINDS, REST):
        cells = [f"{found[f'{n}: {kind}, ms']:.1f} | {found[f'{n}: {kind}, %']:.0f} %" for n in names]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    cells = [f"{found[f'{name}: step, ms']:.1f} | 100 %" for name in names]
    return "\n".join([*lines, "| step | " + " | ".join(cells) + " |"])
