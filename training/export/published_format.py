"""Writes a network as a file of the published code."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from training.checkpoint import PUBLISHED_TABLE, Weights, load_weights
from utils.errors import CheckpointError
from utils.files import write_atomically

PUBLISHED_PREFIX = "_orig_mod.model.inner."
"""Compilation and two wrappers put this before every name in the published code's checkpoints."""


def published_state(weights: Weights, folder: Path | None = None) -> dict[str, Tensor]:
    """Returns weights and puzzle rows under the names that the published code gives them.

    Args:
        folder: where rows that are too many for memory are put together.

    Raises:
        CheckpointError: if the published code has no network like theirs.
    """
    named = dict(weights.network)
    if any(name.startswith("puzzle_embedding.") for name in named):
        raise CheckpointError(
            f"{weights.source} has a composed puzzle embedding, which the published code does not know: use "
            "--format folder"
        )
    if any(name.startswith("embed_steps.") for name in named):
        raise CheckpointError(
            f"{weights.source} is told its steps (arch.step_embedding), which the published code does not know: use "
            "--format folder"
        )
    if "init_hidden" in named:  # a urm: its code has no levels
        named = {key.removeprefix("L_level."): value for key, value in named.items()}
    if weights.puzzle_rows is not None:
        rows = weights.puzzle_rows
        named[PUBLISHED_TABLE] = rows if isinstance(rows, Tensor) else rows.dense(folder)
    return {PUBLISHED_PREFIX + key: value.contiguous() for key, value in named.items()}


def write_published(source: Path, target: Path, averaged: bool = True) -> dict[str, Tensor]:
    """Writes the published code's checkpoint file, whole or not at all.

    Returns:
        its content.

    Raises:
        CheckpointError: if `source` is not a checkpoint, or `target` exists.
    """
    if target.exists():
        raise CheckpointError(f"{target} exists: name another file or remove it")
    state = published_state(load_weights(source, averaged), target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda stream: torch.save(state, stream))
    return state
