"""Evaluation batches: every example once, in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.augmentation import IDENTITY_ROW
from dataset.canvas import Canvas
from dataset.sampling.joined import Batch, JoinedSplits
from dataset.storage import Split


class EvalBatches:
    """All examples in order, each exactly once over all ranks, without random offsets.

    A rank gets its contiguous slice of every global batch; the last one is filled with blank rows.  All ranks make the
    same number of steps.

    Args:
        splits: what to read; several are joined.
        batch_size: examples per step over all ranks; rounded up to a multiple of the ranks.
        examples: int [N], which examples, and in which order; None means all.
        canvas: read only the top-left part of the whole canvas, which must hold the inputs.  Labels are then left out:
            they may be larger.
        identified: see `JoinedSplits`.

    Yields:
        (int64 [B] index of each example, -1 for a blank row; the batch), B = batch_size / world_size.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        examples: NDArray[Any] | None = None,
        canvas: Canvas | None = None,
        identified: bool = False,
    ) -> None:
        assert batch_size >= 1, batch_size
        assert 0 <= rank < world_size, (rank, world_size)
        self.data = JoinedSplits(splits, identified=identified)
        self._examples = np.arange(self.data.num_examples) if examples is None else np.asarray(examples, dtype=np.int64)
        outside = (self._examples < 0) | (self._examples >= self.data.num_examples)
        assert not outside.any(), (
            f"example {self._examples[outside][0]} does not exist: there are {self.data.num_examples} examples"
        )
        whole = self.data.metadata.canvas
        self._canvas = None if canvas == whole else canvas
        self._cells = (canvas or whole).cells
        self._rank = rank
        self._rows_of_rank = math.ceil(batch_size / world_size)
        self.stride = self._rows_of_rank * world_size

    def __len__(self) -> int:
        return math.ceil(len(self._examples) / self.stride)

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        for step in range(len(self)):
            first = step * self.stride + self._rank * self._rows_of_rank
            yield self._padded(self._examples[first : first + self._rows_of_rank])

    def _padded(self, examples: NDArray[np.int64]) -> tuple[NDArray[np.int64], Batch]:
        metadata = self.data.metadata
        B, N = self._rows_of_rank, len(examples)
        indices = np.full(B, -1, dtype=np.int64)
        inputs = np.full((B, self._cells), metadata.pad_id, dtype=np.uint8)
        unlabelled = metadata.pad_id if metadata.ignore_label_id is None else metadata.ignore_label_id
        labels = np.full((B, self._cells), unlabelled, dtype=np.uint8)
        identifiers = np.full(B, metadata.blank_identifier_id, dtype=np.int32)
        if N:
            indices[:N] = examples
            if self._canvas is None:
                inputs[:N], labels[:N] = self.data.read(examples)
            else:
                shown = self.data.read(examples)[0].reshape(N, *metadata.canvas)
                inputs[:N] = shown[:, : self._canvas.height, : self._canvas.width].reshape(N, -1)
            puzzles = self.data.layout.puzzles_of(examples)
            identifiers[:N] = self.data.identifiers_of(puzzles)
        if not self.data.identified:
            return indices, Batch(inputs, labels, identifiers)
        tasks = np.zeros(B, dtype=np.int32)
        augmentations = np.tile(IDENTITY_ROW, (B, 1))
        if N:
            tasks[:N], augmentations[:N] = self.data.identities(puzzles)
        return indices, Batch(inputs, labels, identifiers, tasks, augmentations)
