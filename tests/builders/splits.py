"""A split in memory whose every token tells what it is, for tests of what reads splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.canvas import Canvas, whole_canvas
from dataset.storage import PuzzleLayout


@dataclass
class FakeMetadata:
    pad_id: int = 0
    ignore_label_id: int | None = 0
    blank_identifier_id: int = 0
    vocab_size: int = 256
    seq_len: int = 16
    num_puzzle_identifiers: int = 1000
    row_stride: int | None = None

    @property
    def canvas(self) -> Canvas:
        return whole_canvas(self.seq_len)


class FakeSplit:
    """Like `dataset.storage.splits.Split`.  The input row of example e is the bytes of e and of the visit's seed;
    labels + 1.

    Args:
        groups: for each group, the number of examples of each of its puzzles.
    """

    group_weights: NDArray[np.float64] | None = None

    def __init__(self, groups: list[list[int]], first_identifier: int = 1, **metadata: Any) -> None:
        puzzles = [count for group in groups for count in group]
        self.metadata = FakeMetadata(**metadata)
        self.group_indices = np.cumsum([0] + [len(group) for group in groups]).astype(np.int32)
        self.puzzle_indices = np.cumsum([0, *puzzles]).astype(np.int32)
        self.puzzle_identifiers = (first_identifier + np.arange(len(puzzles))).astype(np.int32)
        self.layout = PuzzleLayout.from_starts(self.group_indices, self.puzzle_indices)
        self.num_examples = int(self.puzzle_indices[-1])

    def identifiers_of(self, puzzles: NDArray[np.int64]) -> NDArray[np.int32]:
        return self.puzzle_identifiers[puzzles]

    def identifier_ranges(self) -> NDArray[np.int64]:
        return np.array([[self.puzzle_identifiers[0], self.puzzle_identifiers[-1] + 1]], dtype=np.int64)

    def read(
        self,
        examples: NDArray[np.int64],
        visit_seeds: NDArray[np.uint64] | None = None,
        canvas: Canvas | None = None,
        augmentations: None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if visit_seeds is None:
            visit_seeds = np.zeros(len(examples), dtype=np.uint64)
        assert examples.dtype == np.int64
        assert visit_seeds.dtype == np.uint64
        assert np.all((examples >= 0) & (examples < self.puzzle_indices[-1]))
        inputs = np.zeros((len(examples), (canvas or self.metadata.canvas).cells), dtype=np.uint8)
        inputs[:, :8] = examples.astype("<i8")[:, None].view(np.uint8)
        inputs[:, 8:16] = visit_seeds.astype("<u8")[:, None].view(np.uint8)
        return inputs, inputs + np.uint8(1)

    def canvas_sizes(self, examples: NDArray[np.int64]) -> NDArray[np.int16]:
        """Every third example needs a canvas of 5 x 5, the others one of 4 x 4."""
        side = np.where(examples % 3 == 0, 5, 4)
        return np.stack((side, side), axis=1).astype(np.int16)

    def pair_sizes(self) -> NDArray[np.int16]:
        """Each example is a pair of its own."""
        return self.canvas_sizes(np.arange(self.num_examples))

    def pairs_of(self, puzzles: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        return self.puzzle_indices[puzzles].astype(np.int64), np.zeros(len(puzzles), dtype=np.bool_)


def examples_of(inputs: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The examples that rows of a FakeSplit are."""
    return np.ascontiguousarray(inputs[:, :8]).view("<i8")[:, 0]


def seeds_of(inputs: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The visit seeds that rows of a FakeSplit were read with."""
    return np.ascontiguousarray(inputs[:, 8:16]).view("<u8")[:, 0]
