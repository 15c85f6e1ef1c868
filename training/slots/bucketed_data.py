"""The batches of several canvases, which the scheduler chooses."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing

from dataset.data_shape import DataShape
from dataset.sampling.bucket_streams import BucketStreams, Position
from dataset.sampling.joined import Batch
from training.slots.carries import Carries
from training.slots.micro_batches import MicroBatch, StepBatch
from utils import distributed


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
        return DataShape.from_metadata(
            data.metadata, data.num_puzzle_identifiers, self.streams.canvases, fractions, data.num_task_rows
        )

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
