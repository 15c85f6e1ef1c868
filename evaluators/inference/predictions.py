"""What a model predicted, saved so that votes and scores can be counted again without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np

from utils.files import write_atomically

DTYPES = {
    "tokens": np.uint8,
    "q_halt": np.float32,
    "puzzle_identifiers": np.int32,
    "test_index": np.int32,
    "steps": np.int32,
}


class _Saved:
    """A dataclass of arrays that a compressed .npz holds."""

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        arrays = dict(vars(self))
        write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises ValueError if the file is not what `save` writes; never unpickles."""
        return cls(**_load(path, {name: DTYPES[name] for name in cls.__annotations__}))


@dataclass
class Predictions(_Saved):
    """One row per predicted test example, or several: its answers after its last ACT steps.

    tokens: uint8 [N, canvas cells].  q_halt: float32 [N], halting logits.  puzzle_identifiers: int32 [N].
    test_index: int32 [N], which test input of its task the row answers.  steps: int32 [N], after how many ACT steps.
    """

    tokens: np.ndarray
    q_halt: np.ndarray
    puzzle_identifiers: np.ndarray
    test_index: np.ndarray
    steps: np.ndarray

    @classmethod
    def empty(cls, cells: int) -> Predictions:
        """No predictions, on canvases of so many cells."""
        return cls(np.empty((0, cells), np.uint8), *(np.empty(0, DTYPES[f.name]) for f in fields(cls)[1:]))

    def __len__(self) -> int:
        return len(self.q_halt)

    def places(self) -> np.ndarray:
        """How many later ACT steps of its example each row is followed by, int64 [N]: 0 where it is the last."""
        order = np.lexsort((-self.steps, self.test_index, self.puzzle_identifiers))
        example = np.stack([self.puzzle_identifiers[order], self.test_index[order]])
        starts = np.flatnonzero((np.diff(example, prepend=-1) != 0).any(0))
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        return places

    def last(self, steps: int) -> Predictions:
        """Of each example the answers after the last `steps` of its saved ACT steps."""
        chosen = self.places() < steps
        return Predictions(*(getattr(self, f.name)[chosen] for f in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """Those of several checkpoints or runs as one.

        Raises:
            ValueError: if their canvases differ.
        """
        widths = {part.tokens.shape[1] for part in parts}
        if len(widths) > 1:
            raise ValueError(f"predictions on canvases of {sorted(widths)} cells do not go together: use one data set")
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass
class Trace(_Saved):
    """What un-augmented test inputs look like after each ACT step.

    tokens: uint8 [N, steps, canvas cells].  puzzle_identifiers, test_index: as of predictions.
    """

    tokens: np.ndarray
    puzzle_identifiers: np.ndarray
    test_index: np.ndarray


def _load(path: Path, dtypes: Mapping[str, type]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            loaded = {name: arrays[name] for name in dtypes}
    except Exception as error:  # whatever the readers of archives and headers stumble over
        raise ValueError(
            f"{path} is not a file of predictions ({error}): name RUN/evaluation_step_N/predictions.npz"
        ) from None
    count = len(loaded["tokens"])
    if any(loaded[name].dtype != dtype or len(loaded[name]) != count for name, dtype in dtypes.items()):
        raise ValueError(f"{path} holds arrays of other types or lengths than predictions have: predict again")
    return loaded
