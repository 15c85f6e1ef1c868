"""The one training step, shared by pretraining and test-time fine-tuning."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dataset.batches import Batch
from models.act import Slots, refill_data
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


def train_step(state: TrainState, batch: Batch, total_steps: int) -> None:
    """One optimizer step on this rank's slice of a global batch; nothing is fetched from the device.

    Args:
        total_steps: the planned steps of the run, for the schedule.

    Where a gradient is not finite nothing is updated and every slot takes a new example (`training.guard`).
    The metrics go to `state.sums`.
    """
    config, arch = state.config, state.config.arch
    state.step += 1

    # batch
    slots = to_slots(batch, state.device)
    carry = state.carry_for(slots)
    explore = None
    if arch.halt_exploration_prob > 0 and arch.halt_max_steps > 1:
        drawn = exploration(
            config.seed, state.step, config.global_batch_size, arch.halt_exploration_prob, arch.halt_max_steps
        )
        explore = to_device(collectives.local_slice(drawn), state.device)
    identifiers = refill_data(carry, slots).puzzle_identifiers
    rows = state.table.gather(identifiers) if state.table is not None else None

    # forward, backward; data parallelism averages gradients over ranks, the loss is a sum over the global batch
    state.module.train()
    state.carry, loss, metrics, _ = state.module(carry, slots, rows, explore)
    if loss.requires_grad:
        (loss * (distributed.world_size() / config.global_batch_size)).backward()

    # reduce the rows' gradients
    gradients = [] if state.optimizer is None else state.optimizer.gradients()
    row_gradients = None
    if rows is not None:
        assert rows.grad is not None, "the step lost the gradient of the puzzle rows"
        row_gradients = collectives.all_gather_rows(rows.grad)
        gradients.append(row_gradients)

    # finite?
    ok = state.guard.check(state.step, gradients)
    state.carry = state.carry._replace(halted=state.carry.halted | ~ok)

    # rates, updates, average
    factor = lr_factor(state.step, config.lr_warmup_steps, total_steps, config.lr_min_ratio)
    if state.table is not None and row_gradients is not None:
        state.table.apply_gradients(
            collectives.all_gather_rows(identifiers),
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
    state.sums.add(torch.where(ok, metrics, 0))
