"""The one training step, shared by pretraining and test-time fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dataset.batches import Batch
from models.act import Carry, Slots, refill
from training.lanes import Part
from training.schedule import lr_factor
from training.state import TrainState
from utils import collectives, distributed


def exploration(seed: int, step: int, slots: int, prob: float, max_steps: int) -> np.ndarray:
    """The step before which each slot of the global batch may not halt (0: no such step), int32 [slots].

    With probability `prob` it is uniform in 2..max_steps.  A pure function of seed and step, so that any number of
    ranks, and a resumed run, see the same draws.
    """
    rng = np.random.default_rng((seed, 0xAC7, step))
    explores = rng.random(slots) < prob
    return np.where(explores, rng.integers(2, max(3, max_steps + 1), slots), 0).astype(np.int32)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """The array as a tensor on the device.  On a GPU the copy does not block."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def to_slots(batch: Batch, device: torch.device) -> Slots:
    """A batch on the device, tokens as uint8."""
    return Slots(*(to_device(a, device) for a in (batch.inputs, batch.labels, batch.puzzle_identifiers)))


def train_step(state: TrainState, parts: Sequence[Part], total_steps: int) -> None:
    """One optimizer step on this rank's share of `global_batch_size` slots; nothing is fetched from the device.

    Args:
        parts: the chunks to advance, with the next examples of their slots.
        total_steps: the planned steps of the run, for the schedule.

    Where a gradient is not finite nothing is updated and the slots of these parts take new examples
    (`training.guard`).
    The metrics go to `state.sums`.
    """
    config, arch = state.config, state.config.arch
    state.step += 1
    explore = None
    if arch.halt_exploration_prob > 0 and arch.halt_max_steps > 1:
        explore = exploration(
            config.seed, state.step, config.global_batch_size, arch.halt_exploration_prob, arch.halt_max_steps
        )

    # batch, forward, backward, part by part
    state.module.train()
    found: list[Advanced] = []
    first = 0
    for number, part in enumerate(parts, start=1):
        end = first + state.lanes.lanes[part.lane].chunk_size
        with nullcontext() if number == len(parts) else collectives.unsynced(state.module):
            found.append(_advance(state, part, None if explore is None else explore[first:end]))
        first = end

    # reduce the rows' gradients
    gradients = [] if state.optimizer is None else state.optimizer.gradients()
    row_gradients = None
    if state.table is not None:
        row_gradients = collectives.all_gather_rows(torch.cat([part.row_gradients for part in found]))
        gradients.append(row_gradients)

    # finite?
    ok = state.guard.check(state.step, gradients)
    for part, (before, after, *_) in zip(parts, found, strict=True):
        state.lanes.advance(part, before, after._replace(halted=after.halted | ~ok))

    # rates, updates, average
    factor = lr_factor(state.step, config.lr_warmup_steps, total_steps, config.lr_min_ratio)
    if state.table is not None and row_gradients is not None:
        state.table.apply_gradients(
            collectives.all_gather_rows(torch.cat([part.identifiers for part in found])),
            row_gradients,
            config.puzzle_emb_lr * factor,
            config.puzzle_emb_weight_decay,
            ok,
        )
    if state.optimizer is not None:
        if state.step > config.freeze_trunk * total_steps:
            state.optimizer.step(config.lr * factor, ok)
            if state.ema is not None:
                state.ema.update(ok)
        else:
            state.optimizer.zero_grad()

    # log
    state.sums.add(torch.where(ok, sum(part.metrics for part in found), 0))
    state.lanes.end_step(state.step)


class Advanced(NamedTuple):
    """What the backward pass of a part leaves: its carry before and after, and what the step still needs of it.

    identifiers: int [slots].  row_gradients: [slots, E], empty without a table.  metrics: sums.
    """

    before: Carry
    after: Carry
    identifiers: Tensor
    row_gradients: Tensor
    metrics: Tensor


def _advance(state: TrainState, part: Part, explore: np.ndarray | None) -> Advanced:
    """Forward and backward of one part.  Data parallelism averages gradients over ranks, the loss is a sum over the
    global batch.

    Args:
        explore: of the part's slots over all ranks, see `exploration`.
    """
    slots = to_slots(part.batch, state.device)
    carry = refill(state.lanes.carry_for(part, slots), slots, state.network.initial_latents())
    min_halt_steps = None if explore is None else to_device(collectives.local_slice(explore), state.device)
    identifiers = carry.data.puzzle_identifiers
    rows = state.table.gather(identifiers) if state.table is not None else None
    positions = state.lanes.lanes[part.lane].positions
    after, loss, metrics, _ = state.module(carry, rows, min_halt_steps, positions)
    if loss.requires_grad:
        (loss * (distributed.world_size() / state.config.global_batch_size)).backward()
    if rows is None:
        return Advanced(carry, after, identifiers, loss.new_empty(0), metrics)
    assert rows.grad is not None, "the step lost the gradient of the puzzle rows"
    return Advanced(carry, after, identifiers, rows.grad, metrics)
