"""Train states of tiny networks, and batches for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.data_shape import DataShape
from dataset.sampling.fresh_augmentations import draw_augmentations
from dataset.sampling.joined import Batch
from dataset.storage import open_split
from models.act import ACTStep, Slots, initial_carry, refill
from training.config import PretrainConfig
from training.prepare.prepare import prepare
from training.state import TrainState
from training.step import train_step

C, PUZZLES, BATCH = 16, 7, 4
SHAPE = DataShape(12, C, PUZZLES, 0)
CPU = torch.device("cpu")

TINY = {
    "hidden_size": 16,
    "num_heads": 2,
    "H_cycles": 1,
    "L_cycles": 1,
    "L_layers": 1,
    "expansion": 1.0,
    "puzzle_emb_ndim": 16,
    "puzzle_emb_len": 1,
    "halt_max_steps": 3,
    "forward_dtype": "float32",
}
"""Settings of the network, which further ones replace."""


def state_of(
    shape: DataShape = SHAPE, device: torch.device = CPU, arch: dict[str, Any] | None = None, **settings: Any
) -> TrainState:
    """Returns a fresh train state of `TINY` under these settings."""
    defaults: dict[str, Any] = {
        "data_paths": ["none"],
        "global_batch_size": BATCH,
        "epochs": 1,
        "compile": False,
        "ema": True,
        "lr": 1e-2,
        "lr_warmup_steps": 0,
    }
    config = PretrainConfig(arch=TINY | (arch or {}), **(defaults | settings))
    return prepare(TrainState(config, shape, device), bool(config.compile))


def batch_of(step: int, shape: DataShape = SHAPE, size: int = BATCH) -> Batch:
    """Returns random examples, the same for the same step."""
    rng = np.random.default_rng(step)
    inputs, labels = rng.integers(0, shape.vocab_size, (2, size, shape.seq_len)).astype(np.uint8)
    identifiers = rng.integers(1, shape.num_puzzle_identifiers, size).astype(np.int32)
    if shape.num_task_rows is None:
        return Batch(inputs, labels, identifiers)
    tasks = rng.integers(1, shape.num_task_rows, size).astype(np.int32)
    return Batch(
        inputs, labels, identifiers, tasks, draw_augmentations(rng.integers(2**60, size=size).astype(np.uint64))
    )


def train_on(state: TrainState, steps: int, first: int = 0, total_steps: int = 10) -> TrainState:
    """Trains the state on that many batches and returns it."""
    for step in range(first, first + steps):
        train_step(state, batch_of(step, state.shape, state.config.global_batch_size), total_steps=total_steps)
    return state


def trained(steps: int = 3, **settings: Any) -> TrainState:
    """Returns a state of `state_of` after a few steps."""
    return train_on(state_of(**settings), steps)


def tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Returns everything that a checkpoint holds, under PART/NAME."""
    tables = {name: table.state_dict() for name, table in state.tables.by_name().items()}
    parts = {**state.state_dict(), **tables}
    return {f"{part}/{key}": value for part, named in parts.items() for key, value in named.items()}


def copy_rows(source: TrainState, target: TrainState) -> None:
    """Gives a state the tables of another one, which no `state_dict` of a state has."""
    mine = target.tables.by_name()
    for name, table in source.tables.by_name().items():
        mine[name].load_state_dict({key: value.clone() for key, value in table.state_dict().items()})


def assert_equal(a: TrainState, b: TrainState) -> None:
    mine, theirs = tensors(a), tensors(b)
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        assert torch.equal(value, theirs[key]), key


def kept_bytes(state: TrainState) -> int:
    """Returns how many bytes a forward pass keeps for the backward pass."""
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = batch_of(0, state.shape, state.config.global_batch_size)
    slots = Slots(*(torch.from_numpy(a) for a in (batch.inputs, batch.labels, np.ones(len(batch.inputs), np.int32))))
    rows = torch.zeros(len(batch.inputs), state.config.arch.puzzle_emb_ndim, requires_grad=True)
    step: ACTStep = state.act_step
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = step(refill(initial_carry(state.network, slots), slots, state.network.initial_latents()), rows)
    assert result[1].requires_grad
    return sum(seen.values())


COMPOSED: dict[str, Any] = {"puzzle_embedding": "composed", "puzzle_emb_len": 0}
COMPOSED_SHAPE = DataShape(12, C, PUZZLES, 0, num_task_rows=4)


def composed_state(
    composition: str = "prefix", rank: int = 2, arch: dict[str, Any] | None = None, **more: Any
) -> TrainState:
    """Returns a state whose puzzle embeddings are composed of three tasks and any augmentations."""
    settings = COMPOSED | {"composition": composition, "augmentation_rank": rank} | (arch or {})
    return state_of(COMPOSED_SHAPE, arch=settings, **more)


RECURRENT = TINY | {
    "hidden_size": 32,
    "num_heads": 1,
    "H_cycles": 2,
    "L_cycles": 2,
    "H_layers": 1,
    "puzzle_emb_ndim": 32,
    "puzzle_emb_len": 2,
}
RECURRENT_SHAPE = DataShape(12, C, 20, 0)


def recurrent_state(name: str = "trm", forward_dtype: str = "float32", **settings: Any) -> TrainState:
    """Returns a state of a variant of the network that recurs on both levels."""
    arch = RECURRENT | {"name": name, "forward_dtype": forward_dtype}
    return state_of(RECURRENT_SHAPE, arch=arch, **({"lr": 1e-3} | settings))


STEPS = 4


def predicting_state(data: Path) -> TrainState:
    """Returns a state for a data set, whose network's halting logit is positive for some examples only."""
    metadata = open_split(data, "test").metadata
    shape = DataShape.from_metadata(metadata, metadata.num_puzzle_identifiers)
    state = state_of(shape, arch={"halt_max_steps": STEPS}, global_batch_size=8, ema=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        state.network.q_head.weight.normal_(0, 0.5, generator=generator)
        state.network.q_head.bias.zero_()
        state.table.weights.normal_(0, 1, generator=generator)  # type: ignore[union-attr]
    return state
