"""Predicts every example of a split: `halt_max_steps` recursions each, all ranks together."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch

from dataset.batches import EvalBatches
from dataset.storage import Split
from evaluators.predictions import Predictions
from models.act import Carry, initial_carry
from training.state import TrainState
from training.step import to_slots
from utils import collectives, distributed
from utils.progress import Progress


@torch.inference_mode()
def predict(state: TrainState, split: Split, batch_size: int, use_ema: bool = True) -> Predictions | None:
    """Token canvases, halting logits and places of all examples of `split`.

    Args:
        batch_size: examples per step over all ranks.
        use_ema: predict with the averaged weights where there are any.

    Returns:
        On rank 0 the predictions in the split's order, None on the others.  Collective.
    """
    averaged = state.ema.applied() if use_ema and state.ema is not None else nullcontext()
    batches = EvalBatches([split], batch_size, rank=distributed.rank(), world_size=distributed.world_size())
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    with averaged, Progress(len(batches), "predict", unit="batch", items_per_step=batch_size) as progress:
        state.act_step.eval()
        for examples, batch in batches:
            slots = to_slots(batch, state.device)
            rows = state.table.weights[slots.puzzle_identifiers.to(torch.int64)] if state.table is not None else None
            carry: Carry = initial_carry(state.network, slots)
            for _ in range(state.config.arch.halt_max_steps):
                carry, _, _, out = state.act_step(carry, slots, rows)
                # A slot that is through must not take the batch's example again.
                carry = carry._replace(halted=torch.zeros_like(carry.halted))
            keep = examples >= 0
            tokens = out.logits.argmax(-1).to(torch.uint8).cpu().numpy()
            found.append((examples[keep], tokens[keep], out.q_halt.cpu().numpy()[keep]))
            progress.update(1)
    gathered = collectives.gather_objects_to_main(found)
    if gathered is None:
        return None
    examples, tokens, q_halt = (
        np.concatenate(parts) for parts in zip(*(p for rank in gathered for p in rank), strict=True)
    )
    order = np.argsort(examples, kind="stable")
    examples = examples[order]
    puzzle = np.searchsorted(split.puzzle_indices, examples, side="right") - 1
    return Predictions(
        tokens=tokens[order],
        q_halt=q_halt[order],
        puzzle_identifiers=np.asarray(split.puzzle_identifiers[puzzle], dtype=np.int32),
        test_index=(examples - split.puzzle_indices[puzzle]).astype(np.int32),
    )
