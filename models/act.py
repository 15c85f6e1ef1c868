"""Adaptive computation time: the carry and the three pure parts of a step (refill, recurse, advance).

Shapes are fixed and every decision is a `torch.where`.  So a step compiles into one graph and never waits for the
device.

Dimensions: B slots, C canvas cells, S sequence, D hidden, E width of a puzzle row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.disturbance import Disturbance
from models.losses import Supervision, sharpened_targets, step_loss, weights_of_steps
from models.network import Network, Output, Rows
from models.recursion import Depth, Latents


class Slots(NamedTuple):
    """The examples that the slots work on: inputs [B, C], labels [B, C], puzzle_identifiers [B].

    tasks int [B], augmentations uint8 [B, 11]: of a composed puzzle embedding, else None.
    keys int64 [B]: what is drawn for the examples follows from them (`models.draws`); None if nothing is.
    """

    inputs: Tensor
    labels: Tensor
    puzzle_identifiers: Tensor
    tasks: Tensor | None = None
    augmentations: Tensor | None = None
    keys: Tensor | None = None

    def map(self, f: Callable[..., Tensor], *others: Slots) -> Slots:
        """Returns f of each field of these slots and of others; a field that is None stays None."""
        fields = zip(self, *others, strict=True)
        return Slots(*(None if mine is None else f(mine, *rest) for mine, *rest in fields))  # type: ignore[arg-type]


class Carry(NamedTuple):
    """What the slots keep between steps: latents, each [B, S, D]; steps int32 [B]; halted bool [B]; their examples."""

    latents: Latents
    steps: Tensor
    halted: Tensor
    data: Slots


def initial_carry(network: Network, batch: Slots) -> Carry:
    """Returns a carry in which every slot has halted, so that the first `refill` takes the whole batch."""
    B, C = batch.inputs.shape
    device = batch.inputs.device
    return Carry(
        network.empty_latents(B, C, device),
        torch.zeros(B, dtype=torch.int32, device=device),
        torch.ones(B, dtype=torch.bool, device=device),
        batch.map(torch.zeros_like),
    )


def _choose(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.view(-1, *(1,) * (old.ndim - 1)), new, old)


def refill(carry: Carry, batch: Slots, initial: Latents) -> Carry:
    """Gives halted slots the next example, the initial latents and zero steps; the others keep theirs.

    Call it before each step, outside of `ACTStep`: the step takes the puzzle rows of the examples that it returns.

    Args:
        batch: the next example of each slot, taken where the slot has halted.
        initial: one vector [D] per latent (`Network.initial_latents`).
    """
    return Carry(
        tuple(_choose(carry.halted, init, z) for init, z in zip(initial, carry.latents, strict=True)),
        torch.where(carry.halted, 0, carry.steps),
        carry.halted,
        batch.map(partial(_choose, carry.halted), carry.data),
    )


def advance(
    network: Network,
    carry: Carry,
    out: Output,
    rows: Rows,
    min_halt_steps: Tensor | None,
    training: bool,
    positions: Tensor | None = None,
    width: int | None = None,
    depth: Depth | None = None,
    halts_early: bool = True,
) -> tuple[Carry, Tensor | None]:
    """Counts the step and decides which slots halt.

    Args:
        min_halt_steps: int [B], the first step at which exploration lets a slot halt (0 for any step).
        positions, width, depth: see `Network.forward`.
        halts_early: whether a slot may halt before its last step in training.

    Returns:
        the new carry, and the target [B] of the continue logit.  The target costs one more recursion; it is None if the
        variant does not train this logit.
    """
    arch = network.arch
    steps = carry.steps + 1
    last = steps >= arch.halt_max_steps
    halted, target = last, None
    if training and arch.halt_max_steps > 1:
        if halts_early:
            halted = halted | (out.q_halt > (out.q_continue if arch.halts_against_continue else 0))
            if min_halt_steps is not None:
                halted = halted & (steps >= min_halt_steps)
        if arch.has_continue_target:
            ahead = network(out.latents, carry.data.inputs, rows, positions, width, steps=steps, depth=depth)
            best = torch.where(last, ahead.q_halt, torch.maximum(ahead.q_halt, ahead.q_continue))
            target = torch.sigmoid(best)
    return Carry(out.latents, steps, halted, carry.data), target


class PredictStep(nn.Module):
    """Makes one step of prediction, without a loss: a recursion and its answer.  It compiles into a single graph."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        latents: Latents,
        inputs: Tensor,
        rows: Rows,
        positions: Tensor | None = None,
        width: int | None = None,
        steps: Tensor | None = None,
        disturbance: Disturbance | None = None,
    ) -> tuple[Latents, Tensor, Tensor, Tensor, Tensor]:
        """Recurses once from `latents`.

        Args:
            latents: each [B, S, D].  inputs: tokens [B, C].  rows: see `Network.forward`.
            positions, width, steps: see `Network.forward`.
            disturbance: of the latents, with `steps`; None for none.

        Returns:
            the new latents; the predicted tokens uint8 [B, C]; the halting logits [B]; whether a slot would halt [B];
            the logits [B, C, V].
        """
        if disturbance is not None:
            assert steps is not None, "a disturbance differs from step to step"
            latents = disturbance.start(latents, steps)
        out = self.network(latents, inputs, rows, positions, width, steps=steps, disturbance=disturbance)
        halts = out.q_halt > (out.q_continue if self.network.arch.halts_against_continue else 0)
        return out.latents, out.logits.argmax(-1).to(torch.uint8), out.q_halt, halts, out.logits


class ACTStep(nn.Module):
    """Makes one training or evaluation step over all slots: recurse, advance, loss.  It compiles into a single graph.

    Args:
        ignore_label: the label id of cells without a label.
        supervision: of training.
    """

    def __init__(self, network: Network, ignore_label: int, supervision: Supervision | None = None) -> None:
        super().__init__()
        self.network = network
        self.ignore_label = ignore_label
        self.supervision = supervision or Supervision()

    def forward(
        self,
        carry: Carry,
        rows: Rows,
        min_halt_steps: Tensor | None = None,
        positions: Tensor | None = None,
        width: int | None = None,
        depth: Depth | None = None,
    ) -> tuple[Carry, Tensor, Tensor, Output]:
        """Recurses once and computes loss and metrics.

        Args:
            carry: the slots before the step, refilled (`refill`).
            rows: of the slots' examples, see `Network.forward`.
            min_halt_steps: int [B], see `advance`.
            positions, width, depth: see `Network.forward`.

        Returns:
            the new carry; the loss summed over slots; the metric sums (`models.losses.METRICS`); the network's output.
        """
        network, data, given = self.network, carry.data, self.supervision
        latents, disturbance = carry.latents, None
        if self.training and (given.latent_noise or given.random_starts):
            assert data.keys is not None, "the slots have no keys to draw from"
            disturbance = Disturbance(data.keys, given.latent_noise, given.random_starts)
            latents = disturbance.start(latents, carry.steps)
        out = network(latents, data.inputs, rows, positions, width, carry.steps, disturbance, depth)
        sharpens = self.training and given.sharpening_targets
        with torch.no_grad():
            where = (positions, width, depth)
            carry, target = advance(network, carry, out, rows, min_halt_steps, self.training, *where, not sharpens)
        max_steps = network.arch.halt_max_steps
        targets = weights = None
        if sharpens:
            assert data.keys is not None, "the slots have no keys to draw from"
            targets = sharpened_targets(data.labels, data.keys, carry.steps, max_steps, self.ignore_label)
        if self.training and given.step_weights == "linear":
            weights = weights_of_steps(carry.steps, max_steps)
        loss, metrics = step_loss(
            out.logits,
            out.q_halt,
            out.q_continue,
            carry.data.labels,
            carry.halted,
            carry.steps,
            loss_type=network.arch.loss_type,
            ignore_label=self.ignore_label,
            target_q_continue=target,
            q_loss_of_unlabelled=self.training,
            targets=targets,
            weights=weights,
        )
        # These are detached so that no gradient is prepared for values that only evaluation reads.  By name: before 2.9
        # PyTorch cannot compile the slice of a named tuple.
        detached = Output(out.latents, out.logits.detach(), out.q_halt.detach(), out.q_continue.detach())
        return carry, loss, metrics, detached
