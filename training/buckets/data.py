"""What a run trains on: which batches, on which canvases."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

from dataset import canvas
from dataset.canvas import Canvas
from dataset.data_shape import DataShape
from dataset.sampling.bucket_streams import BucketStreams, Position, measure_demand
from dataset.sampling.joined import Batch
from dataset.sampling.sampler import BatchSampler
from dataset.storage import Split
from training.buckets.slots import Lanes, Part
from training.config import RunConfig
from training.cost_model import example_cost
from utils import distributed


@dataclass
class TrainingData:
    """The batches of the whole canvas, which say how many steps a run has, and the streams of several canvases where
    there are several."""

    sampler: BatchSampler
    canvases: tuple[Canvas, ...]
    streams: BucketStreams | None

    @classmethod
    def open(cls, config: RunConfig, splits: Sequence[Split]) -> TrainingData:
        """This rank's view of `splits` under the settings.

        Raises:
            ValueError: if they do not fit together.
        """
        sampler = BatchSampler(
            splits,
            config.global_batch_size,
            config.epochs_per_interval,
            config.seed,
            distributed.rank(),
            distributed.world_size(),
        )
        data, whole = sampler.data, splits[0].metadata.canvas
        if config.canvases is None:
            chosen: tuple[Canvas, ...] = (whole,)
        elif config.canvases == "fitted":
            extents, visits = measure_demand(data)
            chosen = canvas.fit_canvases(extents, visits, whole, partial(example_cost, config.arch))
        else:
            chosen = canvas.validate_canvases(config.canvases, whole)
        streams = BucketStreams(data, chosen, config.seed) if len(chosen) > 1 else None
        return cls(sampler, chosen, streams)

    @property
    def shape(self) -> DataShape:
        data = self.sampler.data
        shares = None if self.streams is None else tuple(self.streams.fractions.tolist())
        return DataShape.from_metadata(data.metadata, data.num_puzzle_identifiers, self.canvases, shares)

    def steps(self, lanes: Lanes, interval: int, position: int) -> Generator[list[Part], None, None]:
        """The parts of each step of an interval from step `position` on; with several canvases those whose turn it
        is, from where their streams are."""
        if self.streams is None:
            return self._whole_steps(lanes, interval, position)
        return self._lane_steps(lanes, self.streams, self.sampler.num_steps(interval) - position)

    def _whole_steps(self, lanes: Lanes, interval: int, position: int) -> Generator[list[Part], None, None]:
        (lane,) = lanes
        share = lane.chunk_size // distributed.world_size()
        with closing(self.sampler.stream(interval, position, micro_batch_size=lane.chunk_size)) as batches:
            for batch in batches:
                yield [
                    Part(0, chunk, batch.rows(first, first + share))
                    for chunk, first in enumerate(range(0, len(batch), share))
                ]

    @staticmethod
    def _lane_steps(lanes: Lanes, streams: BucketStreams, steps: int) -> Generator[list[Part], None, None]:
        assert lanes.rota is not None
        rank, world_size = distributed.rank(), distributed.world_size()
        opened: dict[int, Iterator[tuple[Batch, Position]]] = {}
        with ExitStack() as closes:
            for _ in range(steps):
                parts = []
                for i, chunk in lanes.rota.turn():
                    if i not in opened:
                        lane = lanes.lanes[i]
                        stream = streams.stream(i, lane.chunk_size, lane.position, rank, world_size)
                        opened[i] = closes.enter_context(closing(stream))
                    parts.append(Part(i, chunk, *next(opened[i])))
                yield parts

    def __str__(self) -> str:
        """The canvases in words; empty for the whole one alone."""
        if self.streams is None:
            return ""
        shares = zip(self.canvases, self.streams.fractions, strict=True)
        return "canvases " + ", ".join(f"{canvas} ({share:.0%})" for canvas, share in shares)
