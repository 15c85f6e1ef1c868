"""What a run trains on: its batches, and the number of steps that they make."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Protocol

import numpy as np

from dataset import canvas
from dataset.canvas import Canvas
from dataset.data_shape import DataShape
from dataset.sampling.bucket_streams import BucketStreams, measure_demand
from dataset.sampling.joined import JoinedSplits
from dataset.sampling.sampler import BatchSampler
from dataset.storage import Split
from training.config import EvalConfig, RunConfig
from training.metrics.cost_model import example_cost
from training.slots.bucketed_data import BucketedData
from training.slots.carries import Carries
from training.slots.micro_batches import StepBatch
from utils import distributed
from utils.errors import SettingError


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
        identified=config.arch.is_composed,
        fresh=config.fresh_augmentations,
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


@dataclass(frozen=True)
class VisitOutlook:
    """How often a run will visit a puzzle.  Puzzles are drawn by chance, so that some are visited more often.

    mean: visits of a puzzle.  never, once: the fractions of all puzzles that are expected to have none, and one.
    """

    puzzles: int
    mean: float
    never: float
    once: float

    @classmethod
    def from_splits(cls, splits: Sequence[Split], epochs: int) -> VisitOutlook:
        """Computes it from the groups: each visit of a group of P puzzles is of each of them with probability 1 / P."""
        layouts = [split.layout for split in splits]
        puzzles = np.concatenate([np.diff(layout.group_starts) for layout in layouts]).astype(np.float64)
        weights = [np.ones(s.layout.num_groups) if s.group_weights is None else s.group_weights for s in splits]
        visits = epochs * np.concatenate(weights)
        total = puzzles.sum()
        if not total:
            return cls(0, 0.0, 0.0, 0.0)
        never = (1 - 1 / puzzles) ** visits
        once = visits / puzzles * (1 - 1 / puzzles) ** np.maximum(0, visits - 1)
        fractions = (float((puzzles * each).sum() / total) for each in (never, once))
        return cls(int(total), float(visits.sum() / total), *fractions)


FEW_ARE_TRAINED = 0.5
"""More than this fraction of rows that are visited once at most is worth a word of advice."""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def describe_visits(config: RunConfig, splits: Sequence[Split]) -> str:
    """Says in a sentence how often the run will visit a puzzle, and what to do if that is hardly ever."""
    epochs = config.num_intervals * config.epochs_per_interval
    if not epochs:
        return "epochs=0: nothing is trained, and the network is evaluated as it is"
    outlook = VisitOutlook.from_splits(splits, epochs)
    if not outlook.puzzles:
        return "the data sets have no puzzles to train on"
    is_timed = isinstance(config, EvalConfig) and (config.time_budget is not None or config.deadline is not None)
    in_time = ", if the time is enough" if is_timed else ""
    if config.fresh_augmentations:
        groups = sum(split.layout.num_groups for split in splits)
        visits = outlook.mean * outlook.puzzles / groups
        return (
            f"each of {groups:,} tasks is visited {_number(visits)} times on average{in_time}, each time under a new "
            "augmentation"
        )
    said = (
        f"each of {outlook.puzzles:,} puzzles is visited {_number(outlook.mean)} times on average{in_time}: "
        f"{outlook.never:.0%} of them never, {outlook.once:.0%} once"
    )
    has_rows = config.arch.puzzle_emb_ndim > 0 and not config.arch.is_composed
    has_rows &= max(split.metadata.num_puzzle_identifiers for split in splits) > outlook.puzzles  # not shared ones
    if not has_rows or outlook.never + outlook.once <= FEW_ARE_TRAINED:
        return said
    return (
        f"{said}.  Most rows of the puzzle table will hardly be trained: set arch.puzzle_embedding=composed and "
        "fresh_augmentations=true for one row per task, or raise epochs"
    )


class WholeCanvasData:
    """The batches of one canvas: those of the sampler."""

    def __init__(self, sampler: BatchSampler, canvas: Canvas) -> None:
        self.sampler, self.canvas = sampler, canvas

    @property
    def shape(self) -> DataShape:
        data = self.sampler.data
        return DataShape.from_metadata(
            data.metadata, data.num_puzzle_identifiers, (self.canvas,), num_task_rows=data.num_task_rows
        )

    def num_steps(self, interval: int) -> int:
        return self.sampler.num_steps(interval)

    def batches(self, carries: Carries, interval: int, position: int) -> Generator[StepBatch, None, None]:
        # The rows of a micro-batch over all ranks are neighbours in the global batch, whatever the number of ranks.
        yield from self.sampler.stream(interval, position, micro_batch_size=carries.micro_batch_size)

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True)
class StepPlan:
    """The steps of a run.  Settings count epochs; everything after this class counts steps.

    interval_steps: the steps of each interval.
    """

    interval_steps: list[int]

    @classmethod
    def from_settings(cls, config: RunConfig, data: TrainingData) -> StepPlan:
        """Counts the steps of all intervals; each rank counts some of them.  Collective.

        Raises:
            SettingError: if an interval has no step.
        """
        rank, ranks = distributed.rank(), distributed.world_size()
        mine = {interval: data.num_steps(interval) for interval in range(rank, config.num_intervals, ranks)}
        counted = {interval: n for part in distributed.all_gather_object(mine) for interval, n in part.items()}
        steps = [counted[interval] for interval in range(config.num_intervals)]
        if steps and min(steps) == 0:
            raise SettingError(
                f"one interval of {config.epochs_per_interval} epochs has fewer examples than one batch of "
                f"{config.global_batch_size}: lower global_batch_size or raise eval_interval"
            )
        return cls(steps)

    @property
    def total_steps(self) -> int:
        return sum(self.interval_steps)

    def end_of(self, interval: int) -> int:
        """Returns how many steps are made when an interval ends."""
        return sum(self.interval_steps[: interval + 1])

    def ends_interval(self, step: int) -> bool:
        """Returns whether an interval ends after `step` steps; a plan without intervals ends at step 0."""
        return step in (list(accumulate(self.interval_steps)) or [0])

    def summary(self, step: int) -> str:
        """Says what is left after `step` steps."""
        left = self.total_steps - step
        if left > 0:
            return f"{left} steps to make; the first, on each canvas, takes longer where it is compiled"
        return f"nothing left to train: all {self.total_steps} steps are made"

    def locate(self, step: int) -> tuple[int, int]:
        """Returns the interval, and the step within it, that follow after `step` steps.

        Raises:
            SettingError: if the plan has fewer steps.
        """
        if step > self.total_steps:
            raise SettingError(
                f"{step} steps are made, {self.total_steps} were asked for: "
                "raise epochs, or choose another checkpoint_path"
            )
        for interval, length in enumerate(self.interval_steps):
            if step < length:
                return interval, step
            step -= length
        return len(self.interval_steps), 0
