"""The one training step, shared by pretraining and test-time fine-tuning."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dataset.sampling.joined import Batch
from models import draws
from models.act import Carry, Slots, refill
from models.recursion import Depth
from training.optim.nonfinite import tensor_norms
from training.optim.schedule import depth_at, lr_factor
from training.slots.micro_batches import MicroBatch
from training.slots.tables.row_tables import Lookup, join_rows
from training.state import TrainState
from utils import collectives, distributed


def train_step(state: TrainState, batch: Batch | Sequence[MicroBatch], total_steps: int) -> None:
    """Makes one optimizer step on `global_batch_size` slots.  Nothing is fetched from the device.

    Where a gradient is not finite nothing is updated, and the slots of this batch take new examples
    (`training.optim.nonfinite`).  The metrics go to `state.sums`.

    Args:
        batch: this rank's slice: the next example of each slot.  With several canvases, micro-batches of them.
        total_steps: the planned steps of the run, for the schedule.
    """
    assert state.is_ready, "call training.prepare.prepare first: several ranks would train apart"
    config = state.config
    state.step += 1
    factor = lr_factor(
        *(state.step, config.lr_warmup_steps, total_steps, config.lr_min_ratio),
        *(config.lr_schedule, config.lr_decay_fraction),
    )
    depth = depth_at(config.depth_curriculum, state.step, total_steps)
    network_trains = state.step > config.freeze_trunk * total_steps

    # ---- one training step ---------------------------------------------------------------------------------------
    # batch, forward, backward: one micro-batch after the other, mostly there is one; their gradients add up
    state.module.train()
    micro_batches = state.carries.split(batch)
    drawn = zip(explored_steps(state, micro_batches), keys_of_examples(state, micro_batches), strict=True)
    results: list[StepResult] = []
    for micro_batch, (min_halt_steps, keys) in zip(micro_batches, drawn, strict=True):
        is_last = len(results) == len(micro_batches) - 1
        with nullcontext() if is_last else collectives.unsynced(state.module):
            results.append(forward_backward(state, micro_batch, min_halt_steps, keys, depth))

    # reduce: the network's gradients are averaged over ranks already, the rows' are gathered
    gradients = [] if state.optimizer is None else state.optimizer.gradients()
    of_tables = zip(*(result.row_gradients for result in results), strict=True)
    row_gradients: list[Tensor] = [collectives.all_gather_rows(torch.cat(gradient)) for gradient in of_tables]

    # finite?
    norms = tensor_norms(gradients + row_gradients)
    is_finite = state.guard.is_finite(state.step, norms)
    for micro_batch, result in zip(micro_batches, results, strict=True):
        after = result.after._replace(halted=result.after.halted | ~is_finite)
        state.carries.put_back(micro_batch, result.before, after)

    # rates, update, average
    for number, gradient in enumerate(row_gradients):
        lookups = [result.lookups[number] for result in results]
        identifiers = collectives.all_gather_rows(torch.cat([lookup.identifiers for lookup in lookups]))
        table, rate = lookups[0].table, lookups[0].lr * factor
        table.apply_gradients(identifiers, gradient, rate, config.puzzle_emb_weight_decay, is_finite)
    if state.optimizer is not None and network_trains:
        state.optimizer.step(config.lr * factor, is_finite)
        for average in state.averages:
            average.update(is_finite)
    elif state.optimizer is not None:
        state.optimizer.zero_grad()

    # log
    metrics = functools.reduce(torch.add, (result.metrics for result in results))
    state.sums.add(metrics, norms[: len(gradients)], is_finite)
    state.carries.end_step(state.step)
    # --------------------------------------------------------------------------------------------------------------


class StepResult(NamedTuple):
    """What the backward pass of a micro-batch leaves.

    before, after: its carry.  lookups: which rows it used, table by table.  row_gradients: [slots, ..] of each.
    metrics: sums (`models.losses.METRICS`).
    """

    before: Carry
    after: Carry
    lookups: list[Lookup]
    row_gradients: list[Tensor]
    metrics: Tensor


def forward_backward(
    state: TrainState,
    micro_batch: MicroBatch,
    min_halt_steps: Tensor | None,
    keys: Tensor | None = None,
    depth: Depth | None = None,
) -> StepResult:
    """Runs forward and backward pass of one micro-batch.

    The loss is a sum over the global batch.  Data parallelism averages gradients over ranks, so it is scaled by them.

    Args:
        min_halt_steps: int32 [slots], see `exploration`.
        keys: int64 [slots], of the examples that slots may take, see `keys_of_examples`.
        depth: how deep to recurse; None for as deep as the network says.
    """
    slots = to_slots(micro_batch.batch, state.device)._replace(keys=keys)
    state.traced.add((micro_batch.bucket, depth))
    carry = refill(state.carries.carry_of(micro_batch, slots), slots, state.network.initial_latents())
    lookups = state.tables.lookups(carry.data)
    leaves = [lookup.table.gather(lookup.identifiers) for lookup in lookups]
    rows = join_rows(leaves, carry.data)
    positions, width = state.carries.positions_of(micro_batch), state.carries.width_of(micro_batch)
    after, loss, metrics, _ = state.module(carry, rows, min_halt_steps, positions, width, depth)
    if loss.requires_grad:
        (loss * (distributed.world_size() / state.config.global_batch_size)).backward()
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert len(gradients) == len(leaves), "the step lost the gradient of the puzzle rows"
    return StepResult(carry, after, lookups, gradients, metrics)


def exploration(seed: int, step: int, slots: int, prob: float, max_steps: int) -> np.ndarray:
    """Returns the step before which each slot of the global batch may not halt (0: no such step), int32 [slots].

    With probability `prob` it is uniform in 2..max_steps.  A pure function of seed and step, so that any number of
    ranks, and a resumed run, see the same draws.
    """
    rng = np.random.default_rng((seed, 0xAC7, step))
    explores = rng.random(slots) < prob
    return np.where(explores, rng.integers(2, max(3, max_steps + 1), slots), 0).astype(np.int32)


def explored_steps(state: TrainState, micro_batches: Sequence[MicroBatch]) -> list[Tensor | None]:
    """Draws `exploration` for the global batch; returns this rank's slice for each micro-batch, None where none is."""
    config, arch = state.config, state.config.arch
    if arch.halt_exploration_prob == 0 or arch.halt_max_steps == 1:
        return [None] * len(micro_batches)
    slots = config.global_batch_size
    drawn = exploration(config.seed, state.step, slots, arch.halt_exploration_prob, arch.halt_max_steps)
    return _divide(drawn, state, micro_batches)


def keys_of_examples(state: TrainState, micro_batches: Sequence[MicroBatch]) -> list[Tensor | None]:
    """Draws a key (`models.draws`) for the example that each slot of the global batch may take in this step.

    They are a pure function of seed and step, as `exploration`.

    Returns:
        this rank's slice for each micro-batch, None where the settings draw nothing for examples.
    """
    if not state.act_step.supervision.needs_keys:
        return [None] * len(micro_batches)
    rng = np.random.default_rng((state.config.seed, 0xD15, state.step))
    return _divide(rng.integers(draws.KEYS, size=state.config.global_batch_size), state, micro_batches)


def _divide(drawn: np.ndarray, state: TrainState, micro_batches: Sequence[MicroBatch]) -> list[Tensor | None]:
    """Returns this rank's slice, for each micro-batch, of what was drawn for the global batch."""
    sizes = [len(micro_batch.batch) * distributed.world_size() for micro_batch in micro_batches]
    pieces = np.split(drawn, np.cumsum(sizes)[:-1])
    return [to_device(collectives.local_slice(piece), state.device) for piece in pieces]


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Returns the array as a tensor on the device.  On a GPU the copy does not block."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def to_slots(batch: Batch, device: torch.device) -> Slots:
    """Returns a batch on the device, tokens as uint8."""
    arrays = (batch.inputs, batch.labels, batch.puzzle_identifiers, batch.tasks, batch.augmentations)
    return Slots(*(None if array is None else to_device(array, device) for array in arrays))  # type: ignore[arg-type]
