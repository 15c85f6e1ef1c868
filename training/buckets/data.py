"""What a run trains on: the batches of the whole canvas, or those of several canvases."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Protocol

from dataset import canvas
from dataset.canvas import Canvas
from dataset.data_shape import DataShape
from dataset.sampling.bucket_streams import BucketStreams, Position, measure_demand
from dataset.sampling.joined import Batch, JoinedSplits
from dataset.sampling.sampler import BatchSampler
from dataset.storage import Split
from training.buckets.carries import Carries
from training.buckets.micro_batches import MicroBatch
from training.config import RunConfig
from training.cost_model import example_cost
from utils import distributed

StepBatch = Batch | list[MicroBatch]
"""What one training step computes: a batch of the one canvas, or micro-batches of several."""


class TrainingData(Protocol):
    """The batches of a run, as this rank sees them."""

    @property
    def shape(self) -> DataShape:
        """What the train state must know of the data."""

    def num_steps(self, interval: int) -> int:
        """Returns the steps of an interval."""

    def batches(self, carries: Carries, interval: int, position: int) -> Generator[StepBatch, None, None]:
        """Yields what each step of an interval computes, from step `position` on."""

    def __str__(self) -> str:
        """Describes the canvases; empty with one."""


def open_training_data(config: RunConfig, splits: Sequence[Split]) -> TrainingData:
    """Opens `splits` as the settings ask.

    Raises:
        InputError: if they do not fit together.
    """
    sampler = BatchSampler(
        splits,
        config.global_batch_size,
        config.epochs_per_interval,
        config.seed,
        distributed.rank(),
        distributed.world_size(),
    )
    canvases = choose_canvases(config, sampler.data)
    if len(canvases) == 1:
        return WholeCanvasData(sampler, canvases[0])
    return BucketedData(BucketStreams(sampler.data, canvases, config.seed), sampler.num_steps)


def choose_canvases(config: RunConfig, data: JoinedSplits) -> tuple[Canvas, ...]:
    """Returns the canvases that the settings ask for, small ones first.

    Raises:
        InputError: if a canvas does not fit the data set.
    """
    whole = data.metadata.canvas
    if config.canvases is None:
        return (whole,)
    if config.canvases == "fitted":
        extents, visits = measure_demand(data)
        return canvas.fit_canvases(extents, visits, whole, partial(example_cost, config.arch))
    return canvas.validate_canvases(config.canvases, whole)


class WholeCanvasData:
    """The batches of one canvas: those of the sampler."""

    def __init__(self, sampler: BatchSampler, canvas: Canvas) -> None:
        self.sampler, self.canvas = sampler, canvas

    @property
    def shape(self) -> DataShape:
        data = self.sampler.data
        return DataShape.from_metadata(data.metadata, data.num_puzzle_identifiers, (self.canvas,))

    def num_steps(self, interval: int) -> int:
        return self.sampler.num_steps(interval)

    def batches(self, carries: Carries, interval: int, position: int) -> Generator[StepBatch, None, None]:
        (bucket,) = carries
        # The rows of a micro-batch over all ranks are neighbours in the global batch, whatever the number of ranks.
        yield from self.sampler.stream(interval, position, micro_batch_size=bucket.size)

    def __str__(self) -> str:
        return ""


class BucketedData:
    """The batches of several canvases, each with a stream of its own.

    Args:
        streams: the examples of each canvas.
        num_steps: the steps of an interval on the whole canvas, which are also those on several.
    """

    def __init__(self, streams: BucketStreams, num_steps: Callable[[int], int]) -> None:
        self.streams, self._num_steps = streams, num_steps

    @property
    def shape(self) -> DataShape:
        data, fractions = self.streams.data, tuple(self.streams.fractions.tolist())
        return DataShape.from_metadata(data.metadata, data.num_puzzle_identifiers, self.streams.canvases, fractions)

    def num_steps(self, interval: int) -> int:
        return self._num_steps(interval)

    def batches(self, carries: Carries, interval: int, position: int) -> Generator[StepBatch, None, None]:
        """Yields the micro-batches that the scheduler chooses, from where the streams are."""
        assert carries.scheduler is not None
        opened: dict[int, Iterator[tuple[Batch, Position]]] = {}
        with ExitStack() as closes:
            for _ in range(position, self.num_steps(interval)):
                chosen = carries.scheduler.next_step()
                for bucket in {bucket for bucket, _ in chosen} - opened.keys():
                    opened[bucket] = closes.enter_context(closing(self._stream(carries, bucket)))
                yield [MicroBatch(bucket, number, *next(opened[bucket])) for bucket, number in chosen]

    def _stream(self, carries: Carries, bucket: int) -> Generator[tuple[Batch, Position], None, None]:
        """Opens the stream of a canvas where it was left."""
        size, position = carries.buckets[bucket].size, carries.buckets[bucket].position
        return self.streams.stream(bucket, size, position, distributed.rank(), distributed.world_size())

    def __str__(self) -> str:
        fractions = zip(self.streams.canvases, self.streams.fractions, strict=True)
        return "canvases " + ", ".join(f"{canvas} ({fraction:.0%})" for canvas, fraction in fractions)
