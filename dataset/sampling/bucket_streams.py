"""The streams of examples of several canvases.

Each canvas has an endless stream of its own: the visits of epoch after epoch (`dataset.sampling.interval_plan`), of
which it takes the examples that belong on it.  Streams are read at their own speeds; each visits every one of its
examples equally often, as the single stream of the whole canvas does.

    visits:  | a a a | b b | c c c c | ...
    11 x 11: | a     | b b |   c     | ...
    30 x 30: |   a a |     | c   c c | ...
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataset.canvas import Canvas, place_all
from dataset.sampling.interval_plan import plan_interval, take_lane
from dataset.sampling.joined import Batch, JoinedSplits
from dataset.sampling.prefetch import prefetch

EPOCHS = 17
"""At least so many epochs are drawn at once, more where a canvas has few examples; an odd number, so that groups of a
fractional weight do not meet the end of a segment always at the same turn."""

CHUNKS = 16
"""A stream's segment has at least so many chunks, since the last, incomplete one is dropped."""


class Position(NamedTuple):
    """Where a stream goes on: the segment and the chunk within it."""

    segment: int = 0
    chunk: int = 0


class LaneStreams:
    """The streams of all canvases, of which a rank gets its contiguous slice of every chunk.

    Args:
        data: what to train on.
        canvases: small ones first, the last of which holds everything.
        seed: of every draw.

    Attributes:
        shares: float64 [canvases], of all examples that are visited.

    Raises:
        ValueError: if the data set's format knows no extents.
    """

    def __init__(self, data: JoinedSplits, canvases: Sequence[Canvas], seed: int) -> None:
        self.data, self.canvases, self.seed = data, tuple(canvases), seed
        extents, visits = demand_of(data)
        self._lane_of = place_all(extents, canvases)
        if (self._lane_of < 0).any():
            raise ValueError(f"an example fits none of the canvases {', '.join(map(str, canvases))}: add a larger one")
        visited = np.bincount(self._lane_of, visits, minlength=len(canvases))
        self.shares: NDArray[np.float64] = visited / visited.sum()
        self._per_epoch = visited

    def stream(
        self, lane: int, chunk_size: int, start: Position, rank: int = 0, world_size: int = 1, depth: int = 2
    ) -> Generator[tuple[Batch, Position], None, None]:
        """This rank's slices of the chunks of a canvas from `start` on, each with the position after it, made by a
        thread that is up to `depth` chunks ahead."""
        assert self.shares[lane] > 0, self.canvases[lane]
        return prefetch(self._chunks(lane, chunk_size, start, rank, world_size), depth)

    def _chunks(
        self, lane: int, chunk_size: int, start: Position, rank: int, world_size: int
    ) -> Iterator[tuple[Batch, Position]]:
        share = chunk_size // world_size
        segment, chunk = start
        while True:
            examples, puzzles, seeds = self._segment(lane, chunk_size, segment)
            chunks = len(examples) // chunk_size
            while chunk < chunks:
                rows = slice(chunk * chunk_size + rank * share, chunk * chunk_size + (rank + 1) * share)
                inputs, labels = self.data.read(examples[rows], seeds[rows], self.canvases[lane])
                chunk += 1
                after = Position(segment, chunk) if chunk < chunks else Position(segment + 1, 0)
                yield Batch(inputs, labels, self.data.puzzle_identifiers[puzzles[rows]]), after
            segment, chunk = segment + 1, 0

    def _segment(
        self, lane: int, chunk_size: int, segment: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
        """Examples, puzzles and visit seeds of the canvas in a segment, a pure function of the seed."""
        epochs = max(EPOCHS, int(np.ceil(CHUNKS * chunk_size / self._per_epoch[lane]))) | 1
        data = self.data
        starts = data.group_starts, data.example_starts
        plan = plan_interval(*starts, 1, epochs, self.seed, segment, data.group_weights)
        return take_lane(plan, data.example_starts, self._lane_of, lane)


def demand_of(data: JoinedSplits) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """What canvas each example needs, int16 [N, 2], and how often an epoch visits it, float64 [N].

    Raises:
        ValueError: if the data set's format knows no extents.
    """
    extents = data.canvas_sizes(np.arange(data.num_examples))
    puzzles = np.diff(data.group_starts)
    weights = np.ones(len(puzzles)) if data.group_weights is None else data.group_weights
    per_puzzle = np.repeat(weights / puzzles, puzzles)
    return extents, np.repeat(per_puzzle, np.diff(data.example_starts))
