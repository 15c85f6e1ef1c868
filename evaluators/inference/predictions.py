"""Stores what a model predicted, so that votes and scores can be counted again without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

import numpy as np

from dataset.augmentation import NUM_COLOURS, NUM_DIHEDRAL
from utils.errors import SubmissionError
from utils.files import write_atomically

PREDICTIONS, TRACE = "predictions.npz", "trace.npz"

DTYPES = {
    "tokens": np.uint8,
    "q_halt": np.float32,
    "puzzle_identifiers": np.int32,
    "test_index": np.int32,
    "steps": np.int32,
    "augmentations": np.uint8,
}

OPTIONAL = ("augmentations",)
"""What a file has only where there is something to say."""

TOKEN_AXES = {"Predictions": 2, "Trace": 3}
"""The number of axes of `tokens` in each file; augmentations have two, every other array has one axis."""

STORED = np.zeros(1 + NUM_COLOURS, dtype=np.uint8)
"""In place of an augmentation: that of the puzzle that the identifier names."""


class _SavedArrays:
    """A dataclass of arrays that is stored as a compressed .npz."""

    def save(self, path: Path) -> None:
        """Writes the file, complete or not at all."""
        arrays = {name: array for name, array in vars(self).items() if array is not None}
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
    augmentations: uint8 [N, 11], dihedral transform and ten colours, of puzzles that no data set stores, whose
        identifiers are those of their tasks' un-augmented puzzles; zeros in a row whose identifier says all.  None if
        every row is one.
    """

    tokens: np.ndarray
    q_halt: np.ndarray
    puzzle_identifiers: np.ndarray
    test_index: np.ndarray
    steps: np.ndarray
    augmentations: np.ndarray | None = None

    @classmethod
    def empty(cls, cells: int) -> Predictions:
        """Returns no predictions, on canvases of so many cells."""
        return cls(np.empty((0, cells), np.uint8), *(np.empty(0, DTYPES[f.name]) for f in fields(cls)[1:5]))

    def __len__(self) -> int:
        return len(self.q_halt)

    def steps_from_end(self) -> np.ndarray:
        """Returns how many later ACT steps of the same example are kept, int64 [N]: 0 for its last one."""
        numbers = np.zeros(len(self), dtype=np.int64)
        if self.augmentations is not None:
            numbers = self.augmentations @ 10 ** np.arange(len(STORED))  # no two augmentations have the same
        order = np.lexsort((-self.steps, numbers, self.test_index, self.puzzle_identifiers))
        example = np.stack([self.puzzle_identifiers[order], self.test_index[order], numbers[order]])
        starts = np.flatnonzero((np.diff(example, prepend=-1) != 0).any(0))
        from_end = np.empty(len(order), dtype=np.int64)
        from_end[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        return from_end

    def last(self, steps: int) -> Predictions:
        """Returns the answers after the last `steps` of each example's kept ACT steps."""
        chosen = self.steps_from_end() < steps
        return replace(self, **{name: array[chosen] for name, array in vars(self).items() if array is not None})

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
        if any(part.augmentations is not None for part in parts):
            parts = [part.with_augmentations() for part in parts]
        names = [name for name, array in vars(parts[0]).items() if array is not None]
        return replace(parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def with_augmentations(self) -> Predictions:
        """Returns the same with an array `augmentations` in any case."""
        return self if self.augmentations is not None else replace(self, augmentations=np.tile(STORED, (len(self), 1)))


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


def are_augmentations(rows: np.ndarray) -> bool:
    """Returns whether each row is an augmentation or `STORED`: kernels that undo one check nothing."""
    if rows.shape[1:] != STORED.shape:
        return False
    drawn = rows[rows.any(1)]
    is_permuted = (np.sort(drawn[:, 1:], axis=1) == np.arange(NUM_COLOURS)).all()
    return bool(is_permuted and (drawn[:, 1] == 0).all() and (drawn[:, 0] < NUM_DIHEDRAL).all())


def _load_arrays(path: Path, dtypes: Mapping[str, type], token_axes: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            loaded = {name: arrays[name] for name in dtypes if name in arrays or name not in OPTIONAL}
    except Exception as error:  # readers of archives and of array headers raise many kinds
        raise SubmissionError(
            f"{path} is not a file of predictions ({error}): name RUN/evaluation_step_N/{PREDICTIONS}"
        ) from None
    axes = {"tokens": token_axes, "augmentations": 2}
    fits = all(of.dtype == dtypes[name] and of.ndim == axes.get(name, 1) for name, of in loaded.items())
    if "augmentations" in loaded:
        fits = fits and are_augmentations(loaded["augmentations"])
    if not fits or len({len(array) for array in loaded.values()}) > 1:
        raise SubmissionError(f"{path} has arrays of other types or lengths than predictions have: predict again")
    return loaded
