"""Writes a network as a file in the published code's layout."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from training.checkpoint import PUBLISHED_TABLE, Weights, load_weights
from utils.files import write_atomically

PUBLISHED_PREFIX = "_orig_mod.model.inner."
"""What compilation and two wrappers put before every name in the published code's checkpoints."""


def published_state(weights: Weights) -> dict[str, Tensor]:
    """Weights and puzzle rows under the names that the published code gives them."""
    named = dict(weights.network)
    if weights.puzzle_rows is not None:
        named[PUBLISHED_TABLE] = weights.puzzle_rows
    return {PUBLISHED_PREFIX + key: value.contiguous() for key, value in named.items()}


def write_published(source: Path, target: Path, averaged: bool = True) -> dict[str, Tensor]:
    """Writes the published code's checkpoint file, whole or not at all.

    Raises:
        ValueError: if `source` is no checkpoint, or `target` exists.
    """
    if target.exists():
        raise ValueError(f"{target} exists: name another file or remove it")
    state = published_state(load_weights(source, averaged))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda stream: torch.save(state, stream))
    return state
