"""Stores what a model predicted, so that votes and scores can be counted again without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np

from utils.errors import SubmissionError
from utils.files import write_atomically

PREDICTIONS, TRACE = "predictions.npz", "trace.npz"

DTYPES = {
    "tokens": np.uint8,
    "q_halt": np.float32,
    "puzzle_identifiers": np.int32,
    "test_index": np.int32,
    "steps": np.int32,
}

TOKEN_AXES = {"Predictions": 2, "Trace": 3}
"""The number of axes of `tokens` in each file; every other array has one axis."""


class _SavedArrays:
    """A dataclass of arrays that is stored as a compressed .npz."""

    def save(self, path: Path) -> None:
        """Writes the file, complete or not at all."""
        arrays = dict(vars(self))
        write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a file that `save` has written; never unpickles.

        Raises:
            SubmissionError: if it is another file.
        """
        return cls(**_load_arrays(path, {name: DTYPES[name] for name in cls.__annotations__}, TOKEN_AXES[cls.__name__]))


@dataclass
class Predictions(_SavedArrays):
    """One row per predicted test example; several if the answers after several ACT steps are kept.

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
        """Returns no predictions, on canvases of so many cells."""
        return cls(np.empty((0, cells), np.uint8), *(np.empty(0, DTYPES[f.name]) for f in fields(cls)[1:]))

    def __len__(self) -> int:
        return len(self.q_halt)

    def steps_from_end(self) -> np.ndarray:
        """Returns how many later ACT steps of the same example are kept, int64 [N]: 0 for its last one."""
        order = np.lexsort((-self.steps, self.test_index, self.puzzle_identifiers))
        example = np.stack([self.puzzle_identifiers[order], self.test_index[order]])
        starts = np.flatnonzero((np.diff(example, prepend=-1) != 0).any(0))
        from_end = np.empty(len(order), dtype=np.int64)
        from_end[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        return from_end

    def last(self, steps: int) -> Predictions:
        """Returns the answers after the last `steps` of each example's kept ACT steps."""
        chosen = self.steps_from_end() < steps
        return Predictions(*(getattr(self, f.name)[chosen] for f in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """Returns the predictions of several checkpoints or runs as one.

        Raises:
            SubmissionError: if their canvases differ.
        """
        widths = {part.tokens.shape[1] for part in parts}
        if len(widths) > 1:
            raise SubmissionError(
                f"predictions on canvases of {sorted(widths)} cells do not go together: use one data set"
            )
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass
class Trace(_SavedArrays):
    """What un-augmented test inputs look like after each ACT step.

    tokens: uint8 [N, steps, canvas cells].  puzzle_identifiers, test_index: as of predictions.
    """

    tokens: np.ndarray
    puzzle_identifiers: np.ndarray
    test_index: np.ndarray


@dataclass(frozen=True)
class PredictionSnapshot:
    """All that has been predicted until now.

    predictions: on the data set's whole canvas, in the order of the split's examples.
    examples: int64 [N], the example of the split that each row answers; None if that is not known (saved files).
    trace: the un-augmented examples after each step; None if there is no trace.
    repeated: how many examples were predicted again on a larger canvas; None with one canvas.
    is_final: whether nothing more will be predicted.
    lm_loss: float32 [N], of each row, as of `PredictionBatch`; None if it is not known (saved files).
    """

    predictions: Predictions
    examples: np.ndarray | None = None
    trace: Trace | None = None
    repeated: int | None = None
    is_final: bool = True
    lm_loss: np.ndarray | None = None

    def save(self, folder: Path) -> None:
        """Writes `predictions.npz`, and `trace.npz` if there is a trace."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.trace is not None:
            self.trace.save(folder / TRACE)
        self.predictions.save(folder / PREDICTIONS)


def _load_arrays(path: Path, dtypes: Mapping[str, type], token_axes: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            loaded = {name: arrays[name] for name in dtypes}
    except Exception as error:  # readers of archives and of array headers raise many kinds
        raise SubmissionError(
            f"{path} is not a file of predictions ({error}): name RUN/evaluation_step_N/{PREDICTIONS}"
        ) from None
    axes = {name: token_axes if name == "tokens" else 1 for name in dtypes}
    fits = all(loaded[name].dtype == dtype and loaded[name].ndim == axes[name] for name, dtype in dtypes.items())
    if not fits or len({len(array) for array in loaded.values()}) > 1:
        raise SubmissionError(f"{path} has arrays of other types or lengths than predictions have: predict again")
    return loaded
