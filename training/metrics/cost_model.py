"""Estimates what a training step costs: floating-point operations, bytes of memory, kernel launches, seconds.

A step is given as workloads, each some examples on one canvas, so that a step over several canvases is the sum of its
workloads.  Matrix products count two operations per multiply-add; nothing else counts.

Dimensions: S sequence (prefix and canvas), D hidden, F inner width of the SwiGLU.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from models.arch import ArchConfig
from models.kernels.convolution import KERNELS
from models.layers import swiglu_inner_width
from models.recursion import RECURSIONS, Depth

FLOAT = 4
"""Bytes of a weight, a moment, an average and an entry of a puzzle row."""

FUSED_PER_BLOCK, PRODUCTS_PER_BLOCK = 4, 6
"""Launches of one block forward: two norms, rotary and SwiGLU; four projections and the two products of attention."""

KEPT_WIDTHS, KEPT_INNER = 8, 3
"""Tensors that a block keeps for its backward pass: of width D the input, q, k, v, the output of attention, two sums
before norms and the norm between them; of width F gate, up and their product."""

KEPT_BY_CONVOLUTION = 2
"""Tensors of width F that a block keeps besides, with a convolution in its SwiGLU: its result, and the SiLU of that."""

LOSS_COPIES = 2
"""Float64 copies of the logits that the loss keeps."""

PEAK_FLOPS = {  # the first match counts
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Dense bfloat16 operations per second by words of the GPU's name, from NVIDIA's data sheets."""

MEMORY_GB = {
    **{"B200": 180, "H200": 141, "H100": 80, "L40S": 48, "L40": 48, "L4": 24, "A10G": 24, "A10": 24},
    **{"RTX 4090": 24, "RTX 3090": 24},
}
"""Memory by words of the GPU's name, where all of that name have the same (an A100 has 40 or 80 GB)."""


class Workload(NamedTuple):
    """Examples of one length in a step: cells of their canvas, and how many examples (on average)."""

    cells: int
    examples: float


class BlockRuns(NamedTuple):
    """How many blocks a step applies to each example: in total, and of those the ones with a gradient."""

    forward: int
    with_gradient: int


def block_flop(arch: ArchConfig, S: int) -> float:
    """Returns the FLOPs of one block's forward pass on one example of S tokens."""
    D = arch.hidden_size
    channels = 6 * S * D * swiglu_inner_width(D, arch.expansion)
    if arch.mlp_t:
        return channels + 6 * D * S * swiglu_inner_width(S, arch.expansion)
    return channels + 8 * S * D * D + 4 * S * S * D


def example_cost(arch: ArchConfig, cells: int) -> float:
    """Returns the FLOPs of one block's forward pass on one example, by the cells of its canvas."""
    return block_flop(arch, arch.prefix_len + cells)


def at_depth(arch: ArchConfig, depth: Depth | None) -> ArchConfig:
    """Returns the architecture with the cycles of a step that recurses as deep as `depth` (`depth_curriculum`)."""
    return arch if depth is None else arch.model_copy(update=depth._asdict())


def block_runs(arch: ArchConfig) -> BlockRuns:
    """Returns how many blocks one training step applies to each example."""
    H, L = arch.H_cycles, arch.L_cycles
    if arch.name == "transformers_baseline":
        forward = trained = arch.H_layers
    elif arch.name == "hrm":
        forward = H * L * arch.L_layers + H * arch.H_layers
        trained = arch.L_layers + arch.H_layers
    elif arch.name == "urm":
        forward, trained = H * L * arch.L_layers, L * arch.L_layers
    else:
        forward, trained = H * (L + 1) * arch.L_layers, (L + 1) * arch.L_layers
    return BlockRuns(forward * (2 if arch.has_continue_target else 1), trained)


def step_flop(arch: ArchConfig, workloads: Sequence[Workload], recomputes: bool = False, vocab: int = 12) -> float:
    """Returns the FLOPs of one training step.

    A backward pass costs two forward passes, and three where activations are computed again (`recomputes`).
    """
    runs = block_runs(arch)
    times = runs.forward + runs.with_gradient * (3 if recomputes else 2)
    total = 0.0
    for cells, examples in workloads:
        head = 3 * 2 * cells * arch.hidden_size * vocab
        total += examples * (times * example_cost(arch, cells) + head)
    return total


def predict_flop(arch: ArchConfig, workloads: Sequence[Workload], vocab: int = 12) -> float:
    """Returns the FLOPs of one ACT step of prediction."""
    blocks = block_runs(arch).forward / (2 if arch.has_continue_target else 1)
    return sum(
        examples * (blocks * example_cost(arch, cells) + 2 * cells * arch.hidden_size * vocab)
        for cells, examples in workloads
    )


def weight_count(arch: ArchConfig, cells: int, vocab: int = 12) -> int:
    """Returns the number of trainable weights of the network, without the puzzle table."""
    D, S = arch.hidden_size, cells + arch.prefix_len
    mix = 3 * S * swiglu_inner_width(S, arch.expansion) if arch.mlp_t else 4 * D * D
    layers = {"hrm": arch.L_layers + arch.H_layers, "transformers_baseline": arch.H_layers}.get(
        arch.name, arch.L_layers
    )
    inner = swiglu_inner_width(D, arch.expansion)
    conv = 0 if arch.mlp_conv == "none" else inner * (math.prod(KERNELS[arch.mlp_conv]) + 1)
    blocks = layers * (mix + 3 * D * inner + conv)
    positions = S * D if arch.pos_encodings == "learned" else 0
    positions += arch.step_embedding * D
    return blocks + 2 * vocab * D + positions + 2 * D + 2 + _composed_count(arch)


def _composed_count(arch: ArchConfig) -> int:
    """Returns the number of weights that compose puzzle embeddings."""
    if not arch.is_composed:
        return 0
    D, E = arch.hidden_size, arch.puzzle_emb_ndim
    residual = arch.augmentation_rank * E
    if arch.composition == "prefix":
        return (8 + 9) * D + residual
    slot = E // 10
    return 8 * E + 9 * slot + (E - 9 * slot) + 2 * E * 2 * E + 2 * E + residual


@dataclass(frozen=True)
class Memory:
    """The bytes of one device at the peak of a step, by purpose.

    weights: with their gradients.  moments: of the optimizer.  average: of the weights.  carry: before and after the
    step, with its examples.  activations: what the backward pass needs.
    """

    weights: float
    moments: float
    average: float
    puzzle_rows: float
    carry: float
    activations: float

    @property
    def total(self) -> float:
        return sum(vars(self).values())


def step_memory(
    arch: ArchConfig,
    workloads: Sequence[Workload],
    puzzles: int,
    *,
    ema: int = 1,
    ema_rows: bool = False,
    recomputes: bool = False,
    vocab: int = 12,
    at_once: Sequence[Workload] | None = None,
    moments: float | None = None,
    tasks: int = 0,
) -> Memory:
    """Returns the memory of one device that has these slots.

    Activations are what the compiled step keeps between its passes.  For each token and each block with gradient these
    are, in the working dtype: the inputs of its four products and of its norms, q, k, v, and the gate and up halves.
    Where activations are computed again, only the inputs of each application are kept, and those of one application.

    Args:
        workloads: all slots of this device.
        puzzles: rows of the puzzle table; tasks: of the table of tasks, if embeddings are composed.
        ema: how many averages of the weights there are.  ema_rows: whether rows are averaged.
        at_once: what is computed at once, one after the other (micro-batches, canvases); None: all slots.
        moments: bytes of the optimizer; None: those of AdamAtan2, two numbers for each weight.
    """
    width, D = arch.dtype.itemsize, arch.hidden_size
    weights = FLOAT * weight_count(arch, max(each.cells for each in workloads), vocab)
    tokens = sum(each.examples * (each.cells + arch.prefix_len) for each in workloads)
    examples = sum(each.examples for each in workloads)
    cells = sum(each.examples * each.cells for each in workloads)
    latents = len(RECURSIONS[arch.name].latents)
    rows = FLOAT * (tasks if arch.is_composed else puzzles) * arch.puzzle_emb_ndim
    rows += FLOAT * puzzles * arch.augmentation_rank
    kept = [_activations(arch, each, recomputes, vocab) for each in at_once or workloads]
    return Memory(
        weights=2 * weights,
        moments=2 * weights if moments is None else moments,
        average=weights * ema,
        puzzle_rows=rows * (2 if ema_rows else 1),
        carry=2 * tokens * D * width * latents + 3 * (2 * cells + (19 if arch.is_composed else 4) * examples),
        activations=max(kept) if at_once else sum(kept),
    )


def _activations(arch: ArchConfig, workload: Workload, recomputes: bool, vocab: int) -> float:
    """Returns the bytes that a workload keeps between its passes."""
    width, D = arch.dtype.itemsize, arch.hidden_size
    tokens = workload.examples * (workload.cells + arch.prefix_len)
    kept_inner = KEPT_INNER + (KEPT_BY_CONVOLUTION if arch.mlp_conv != "none" else 0)
    per_token = width * (KEPT_WIDTHS * D + kept_inner * swiglu_inner_width(D, arch.expansion))
    blocks = block_runs(arch).with_gradient
    kept: float = tokens * per_token * blocks
    if recomputes:
        applications = max(1, blocks // max(1, arch.L_layers or arch.H_layers))
        kept = tokens * (2 * width * D * applications + per_token * blocks / applications)
    return kept + workload.examples * workload.cells * vocab * (8 * LOSS_COPIES + width)


def launches(arch: ArchConfig) -> int:
    """Returns about how many kernels a training step starts; a backward pass starts twice as many as a forward pass."""
    runs = block_runs(arch)
    per_block = FUSED_PER_BLOCK + PRODUCTS_PER_BLOCK + (arch.mlp_conv != "none")
    return per_block * (runs.forward + 2 * runs.with_gradient)


@dataclass(frozen=True)
class Machine:
    """What a device does at best, and how much of it a step reaches.

    flops: per second in a large matrix product.  fraction: of it that a step reaches.  launch: seconds per kernel.
    link: bytes per second that the all-reduce of gradients moves.  fixed: seconds of a step whatever its size.
    bus: bytes per second between device and host.  row: seconds in which the host reads and updates a puzzle row.
    """

    flops: float
    fraction: float = 1.0
    launch: float = 0.0
    link: float = float("inf")
    fixed: float = 0.0
    bus: float = float("inf")
    row: float = 0.0


def step_seconds(
    arch: ArchConfig,
    workloads: Sequence[Workload],
    machine: Machine,
    ranks: int = 1,
    rows_elsewhere: bool = False,
    **options: bool,
) -> float:
    """Returns the seconds of a training step of one device among `ranks`, each with such `workloads`.

    That is the time of the work or of the launches, whichever is longer, and that of the all-reduce of gradients and
    puzzle rows, which overlaps with nothing.

    Args:
        rows_elsewhere: the puzzle rows are not on the device.  Those of its examples come there, and the host updates
            those of all ranks, while the device waits.
    """
    work = step_flop(arch, workloads, **options) / (machine.flops * machine.fraction)
    wire = 0.0
    if ranks > 1:
        sent = FLOAT * weight_count(arch, max(each.cells for each in workloads)) * 2 * (ranks - 1) / ranks
        width = arch.puzzle_emb_ndim + arch.augmentation_rank
        rows = FLOAT * width * sum(each.examples for each in workloads) * (ranks - 1)
        wire = (sent + rows) / machine.link
    outside = 0.0
    if rows_elsewhere:
        examples = sum(each.examples for each in workloads)
        sent = FLOAT * arch.puzzle_emb_ndim * examples * (1 + ranks)
        outside = sent / machine.bus + examples * ranks * machine.row
    return machine.fixed + max(work, launches(arch) * machine.launch) + wire + outside


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Returns the operations per second that a device reaches at best; None where that is not known.

    A GPU's are looked up (`PEAK_FLOPS`), a CPU's are measured in a tenth of a second.
    """
    if device.type == "cpu":
        return matrix_product_flops(device, dtype, seconds=0.1)
    if dtype != torch.bfloat16:
        return None
    return by_name(PEAK_FLOPS, torch.cuda.get_device_name(device))


def by_name(numbers: Mapping[str, float], gpu: str) -> float | None:
    """Returns the number of a GPU by its name, in which the words of the table occur; None where none of them does."""
    return next((number for words, number in numbers.items() if re.search(rf"\b{words}\b", gpu)), None)


def matrix_product_flops(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Measures the operations per second of square matrix products: the fastest of those within some seconds."""
    if device.type == "cuda":
        return 2 * 8192**3 / _product_seconds(8192, device, dtype, seconds)
    # Some CPUs take seconds for a large product in bfloat16.
    small = 2 * 128**3 / _product_seconds(128, device, dtype, seconds / 4)
    n = 1024 if 2 * 1024**3 / small < seconds / 4 else 256
    return max(small, 2 * n**3 / _product_seconds(n, device, dtype, seconds / 2))


def _product_seconds(n: int, device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Measures the least time of an n x n matrix product, trying it for some seconds and at least twice."""
    a, b = (torch.ones(n, n, device=device, dtype=dtype) for _ in range(2))
    best, times, until = float("inf"), 0, time.perf_counter() + seconds
    while times < 2 or time.perf_counter() < until:
        started = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best, times = min(best, time.perf_counter() - started), times + 1
    return best
