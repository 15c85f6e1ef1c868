"""Writes a checkpoint's weights for others:

    python -m training.export CHECKPOINT FILE            the published code's file, averaged weights where there are any
    python -m training.export CHECKPOINT FILE --raw      the raw weights

CHECKPOINT is a step_N folder of ours or any file that `load_checkpoint=` takes.
"""

from __future__ import annotations

import argparse
import sys
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


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--raw", action="store_true", help="raw weights, not the averaged ones")
    arguments = parser.parse_args()
    try:
        state = write_published(arguments.checkpoint, arguments.file, averaged=not arguments.raw)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    size = sum(value.numel() * value.element_size() for value in state.values())
    print(f"{arguments.file}: {len(state)} tensors, {size / 1e6:,.1f} MB")


if __name__ == "__main__":
    main()
