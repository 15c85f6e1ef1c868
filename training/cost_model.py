"""What a training step costs, reckoned: floating-point operations, bytes of memory, launches.

Steps are costed over a list of parts, each so many examples of one canvas, so that a step over several canvases is the
sum of its parts.  Matrix products count two operations per multiply-add; nothing else counts.

Dimensions: S sequence (prefix and canvas), D hidden, F inner width of the SwiGLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from models.arch import ArchConfig
from models.recursion import RECURSIONS

FLOAT = 4
"""Bytes of a weight, a moment, an average and a puzzle row's entry."""

FUSED_PER_BLOCK, PRODUCTS_PER_BLOCK = 4, 6
"""Launches of one block forward: two norms, rotary and SwiGLU; four projections and the two products of attention."""


class Part(NamedTuple):
    """Examples of one length in a step: cells of the canvas, examples (on average)."""

    cells: int
    examples: float


def inner_width(width: int, expansion: float) -> int:
    """F of a SwiGLU over `width`."""
    return -(-round(expansion * width * 2 / 3) // 256) * 256


def block_flop(arch: ArchConfig, S: int) -> float:
    """Of one block over one example of S places, forward."""
    D = arch.hidden_size
    channels = 6 * S * D * inner_width(D, arch.expansion)
    if arch.mlp_t:
        return channels + 6 * D * S * inner_width(S, arch.expansion)
    return channels + 8 * S * D * D + 4 * S * S * D


class Applications(NamedTuple):
    """How often a step applies blocks, by whether a gradient flows: blocks forward, blocks forward with gradient."""

    all: int
    with_gradient: int


def applications(arch: ArchConfig) -> Applications:
    """Blocks that one training step applies to each example."""
    H, L = arch.H_cycles, arch.L_cycles
    if arch.name == "transformers_baseline":
        forward = trained = arch.H_layers
    elif arch.name == "hrm":
        forward = H * L * arch.L_layers + H * arch.H_layers
        trained = arch.L_layers + arch.H_layers
    else:
        forward, trained = H * (L + 1) * arch.L_layers, (L + 1) * arch.L_layers
    return Applications(forward * (2 if arch.has_continue_target else 1), trained)


def step_flop(arch: ArchConfig, parts: Sequence[Part], recomputes: bool = False, vocab: int = 12) -> float:
    """Of one training step: a backward pass costs two forward ones, and one more where activations are `recomputed`."""
    runs = applications(arch)
    times = runs.all + runs.with_gradient * (3 if recomputes else 2)
    total = 0.0
    for cells, examples in parts:
        head = 3 * 2 * cells * arch.hidden_size * vocab
        total += examples * (times * block_flop(arch, cells + arch.prefix_len) + head)
    return total


def predict_flop(arch: ArchConfig, parts: Sequence[Part], vocab: int = 12) -> float:
    """Of one ACT step of prediction."""
    blocks = applications(arch).all / (2 if arch.has_continue_target else 1)
    return sum(
        examples * (blocks * block_flop(arch, cells + arch.prefix_len) + 2 * cells * arch.hidden_size * vocab)
        for cells, examples in parts
    )


def weight_count(arch: ArchConfig, cells: int, vocab: int = 12) -> int:
    """Trainable weights of the network, the puzzle table left out."""
    D, S = arch.hidden_size, cells + arch.prefix_len
    mix = 3 * S * inner_width(S, arch.expansion) if arch.mlp_t else 4 * D * D
    layers = {"hrm": arch.L_layers + arch.H_layers, "transformers_baseline": arch.H_layers}.get(
        arch.name, arch.L_layers
    )
    blocks = layers * (mix + 3 * D * inner_width(D, arch.expansion))
    positions = S * D if arch.pos_encodings == "learned" else 0
    return blocks + 2 * vocab * D + positions + 2 * D + 2


@dataclass(frozen=True)
class Memory:
    """Bytes of one device at the height of a step, by what holds them."""

    weights: float
    moments: float
    average: float
    puzzle_rows: float
    carry: float
    activations: float

    @property
    def total(self) -> float:
        return sum(vars(self).values())

    @property
    def saved(self) -> float:
        """The size of a checkpoint without the other ranks' slots: weights, moments, average, rows, this carry."""
        return self.weights / 2 + self.moments + self.average + self.puzzle_rows + self.carry


def step_memory(
    arch: ArchConfig,
    parts: Sequence[Part],
    puzzles: int,
    *,
    ema: bool = True,
    ema_rows: bool = False,
    recomputes: bool = False,
    vocab: int = 12,
    at_once: Sequence[Part] | None = None,
) -> Memory:
    """Of one device with its `parts` of a batch.

    Activations are what the compiled step keeps between its passes: of each place and each block with gradient, in the
    working dtype, the inputs of its four products and of its norms, q, k, v and the gate and up halves.  With
    activations computed again only the inputs of each application are kept, and one application's at a time besides.

    Args:
        puzzles: rows of the puzzle table.
        ema, ema_rows: whether weights and rows are averaged.
        at_once: what is computed at once of them, one after the other (micro-batches, canvases); None: all.
    """
    width, D = arch.dtype.itemsize, arch.hidden_size
    weights = FLOAT * weight_count(arch, max(part.cells for part in parts), vocab)
    places = sum(part.examples * (part.cells + arch.prefix_len) for part in parts)
    examples = sum(part.examples for part in parts)
    cells = sum(part.examples * part.cells for part in parts)
    latents = len(RECURSIONS[arch.name].latents)
    rows = FLOAT * puzzles * arch.puzzle_emb_ndim
    kept = [_activations(arch, part, recomputes, vocab) for part in at_once or parts]
    return Memory(
        weights=2 * weights,  # and their gradients
        moments=2 * weights,
        average=weights if ema else 0,
        puzzle_rows=rows * (2 if ema_rows else 1),
        carry=2 * places * D * width * latents + 3 * (2 * cells + 4 * examples),
        activations=max(kept) if at_once else sum(kept),
    )


def _activations(arch: ArchConfig, part: Part, recomputes: bool, vocab: int) -> float:
    """Bytes that a part keeps between its passes."""
    width, D = arch.dtype.itemsize, arch.hidden_size
    places = part.examples * (part.cells + arch.prefix_len)
    per_place = width * (KEPT_WIDTHS * D + KEPT_INNER * inner_width(D, arch.expansion))
    blocks = applications(arch).with_gradient
    kept: float = places * per_place * blocks
    if recomputes:
        applied = max(1, blocks // max(1, arch.L_layers or arch.H_layers))
        kept = places * (2 * width * D * applied + per_place * blocks / applied)
    return kept + part.examples * part.cells * vocab * (8 * LOSS_COPIES + width)


KEPT_WIDTHS, KEPT_INNER = 8, 3
"""Tensors of width D (the input, q, k, v, attention's output, two sums before norms, the norm between) and of width F
(gate, up, their product) that a block keeps."""

LOSS_COPIES = 2
"""Float64 copies of the logits that the loss keeps."""


def launches(arch: ArchConfig) -> int:
    """About how many kernels a training step starts, whatever the batch: a backward pass starts twice as many."""
    runs = applications(arch)
    return (FUSED_PER_BLOCK + PRODUCTS_PER_BLOCK) * (runs.all + 2 * runs.with_gradient)


@dataclass(frozen=True)
class Machine:
    """What a device does at best and how much of it a step reaches.

    flops: of a large matrix product, per second.  share: of it that a step reaches.  launch: seconds per kernel.
    link: bytes per second that the gradients' all-reduce moves.  fixed: seconds of a step whatever its size.
    """

    flops: float
    share: float = 1.0
    launch: float = 0.0
    link: float = float("inf")
    fixed: float = 0.0


def step_seconds(arch: ArchConfig, parts: Sequence[Part], machine: Machine, ranks: int = 1, **options: bool) -> float:
    """Of a training step of one device of `ranks`, each with its `parts`: work or launches, whichever takes longer, and
    the all-reduce of gradients and puzzle rows, of which nothing is hidden."""
    work = step_flop(arch, parts, **options) / (machine.flops * machine.share)
    wire = 0.0
    if ranks > 1:
        sent = FLOAT * weight_count(arch, max(part.cells for part in parts)) * 2 * (ranks - 1) / ranks
        rows = FLOAT * arch.puzzle_emb_ndim * sum(part.examples for part in parts) * (ranks - 1)
        wire = (sent + rows) / machine.link
    return machine.fixed + max(work, launches(arch) * machine.launch) + wire


def example_cost(arch: ArchConfig, cells: int) -> float:
    """FLOP of one example in one application of one block, by the cells of its canvas."""
    return block_flop(arch, arch.prefix_len + cells)
