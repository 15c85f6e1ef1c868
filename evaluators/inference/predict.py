"""Predicts a split on all ranks together, the un-augmented examples first, and stops when time is up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from dataset.canvas import Canvas
from dataset.encoding import BLANK_IDENTIFIER
from dataset.sampling.eval_batches import EvalBatches
from dataset.sampling.prefetch import prefetch
from dataset.storage import Split
from evaluators.inference.canvas_choice import CanvasFallback
from evaluators.inference.engine import Batching, PredictionOptions, open_batching
from evaluators.inference.gather import PredictionCollector, order_in_rounds
from evaluators.inference.predictions import PredictionSnapshot
from models.ema import EMA
from training.slots.tables.kinds import is_sharded
from training.state import TrainState
from utils import distributed
from utils.consensus import FlagConsensus
from utils.progress import Progress
from utils.timers import BatchTimer

PORTIONS = 10
"""In how many portions the augmented examples are predicted.  After each one there is a snapshot."""


def predict_all(
    state: TrainState,
    split: Split,
    options: PredictionOptions,
    fallback: CanvasFallback | None = None,
    average: EMA | None = None,
) -> PredictionSnapshot | None:
    """Returns the predictions of all examples of a split on rank 0, None elsewhere.  Collective.

    Args:
        average: of the state's weights, in place of `state.ema`.
    """
    return deque(predict_in_rounds(state, split, options, fallback, average=average), maxlen=1)[0]


@torch.inference_mode()
def predict_in_rounds(
    state: TrainState,
    split: Split,
    options: PredictionOptions,
    fallback: CanvasFallback | None = None,
    *,
    until: float | None = None,
    longest_batch: float = 0.0,
    average: EMA | None = None,
) -> Iterator[PredictionSnapshot | None]:
    """Predicts the un-augmented examples, then the others in portions.

    Args:
        fallback: the canvases, and which one each example starts on; None for the whole canvas alone.
        until: `time.monotonic()` on rank 0 at which to stop; None predicts everything.
        longest_batch: seconds that a batch is known to take at most; the longest one so far counts too.
        average: of the state's weights, in place of `state.ema`.

    Yields:
        all predictions so far on rank 0, None elsewhere: after the un-augmented examples, after each portion, and at
        the end.  Collective.
    """
    _fetch_rows(state, split)
    order, first_round = order_in_rounds(split)
    portions = [order[:first_round], *np.array_split(order[first_round:], PORTIONS)]
    average = average or state.ema
    averaged = average.apply() if options.use_ema and average is not None else nullcontext()
    with averaged, Progress(len(order), "predict", unit="example") as progress:
        predictor = _Predictor(state, split, options, fallback or CanvasFallback((split.metadata.canvas,)), progress)
        timer = BatchTimer(until, longest_batch)
        for number, portion in enumerate(portions):
            is_last = number == PORTIONS
            # The first round leaves no example waiting, so that every task has votes.  Where time can end the
            # prediction no portion does, since examples in slots of other canvases would then be lost.
            is_flushed = number == 0 or is_last or until is not None
            predictor.predict_portion(portion, timer, is_flushed=is_flushed, traces=number == 0)
            if len(portion) or number == 0 or is_last:
                yield predictor.snapshot(is_final=is_last or predictor.is_stopped)
                timer.restart()  # what is done with a snapshot does not count as a batch's time
            if predictor.is_stopped:
                break
        predictor.close()


def _fetch_rows(state: TrainState, split: Split) -> None:
    """Brings the rows of a split's puzzles to every rank, where each rank stores a part of them.  Collective."""
    if not is_sharded(state.config):
        return
    # Slots without an example have the blank puzzle.
    puzzles = torch.from_numpy(np.append(split.puzzle_identifiers, BLANK_IDENTIFIER)).to(state.device)
    tasks = None
    if state.config.arch.is_composed:
        of_puzzles = split.identities(np.arange(split.layout.num_puzzles)).tasks
        tasks = torch.from_numpy(np.append(np.unique(of_puzzles), 0)).to(state.device)
    state.tables.fetch(puzzles, tasks)


class _Predictor:
    """Predicts portions of a split's examples, on each canvas those that wait for it.

    is_stopped: whether time was up.
    """

    def __init__(
        self,
        state: TrainState,
        split: Split,
        options: PredictionOptions,
        fallback: CanvasFallback,
        progress: Progress,
    ) -> None:
        self._state, self._split, self._options, self._fallback = state, split, options, fallback
        self._progress = progress
        self._collector = PredictionCollector(split, fallback)
        self._waiting = [np.empty(0, dtype=np.int64) for _ in fallback.canvases]
        self._batchings: dict[int, Batching] = {}
        self._stride = EvalBatches([split], options.batch_size, world_size=distributed.world_size()).stride
        self._consensus = FlagConsensus(every=1)
        self._repeated = 0
        self.is_stopped = False

    def predict_portion(self, portion: np.ndarray, timer: BatchTimer, *, is_flushed: bool, traces: bool) -> None:
        """Predicts a portion, on small canvases first, so that what they cut off is repeated on the next ones.

        Args:
            portion: int64 [N], examples.
            is_flushed: leave no example waiting.  Otherwise only full batches are predicted, and examples that have not
                exited keep their slots, so that these are full when the next portion comes.
            traces: keep the traces, if the options ask for them.
        """
        options = self._options if traces else replace(self._options, trace=False)
        levels = self._fallback.first_levels(portion)
        for level in range(len(self._fallback.canvases)):
            waiting = np.concatenate((self._waiting[level], portion[levels == level]))
            count = len(waiting) if is_flushed else len(waiting) // self._stride * self._stride
            self._waiting[level] = waiting[count:]
            if count or level in self._batchings:
                self._predict_on(level, waiting[:count], timer, options, is_flushed)
            if self.is_stopped:
                break

    def _predict_on(
        self, level: int, examples: np.ndarray, timer: BatchTimer, options: PredictionOptions, is_flushed: bool
    ) -> None:
        """Predicts examples on one canvas; those that it cuts off wait for the next one."""
        canvas = self._fallback.canvases[level]
        self._repeated += int((self._fallback.first_levels(examples) < level).sum())
        batches = EvalBatches(
            [self._split],
            options.batch_size,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            examples=examples,
            canvas=canvas,
            identified=self._state.config.arch.is_composed,
        )
        if level not in self._batchings:
            read_labels = partial(_labels_on, self._split, canvas)
            self._batchings[level] = open_batching(self._state, canvas, options, read_labels)
        batching = self._batchings[level]
        left = len(examples)
        for numbers, batch in prefetch(iter(batches)):
            self._collector.add(level, batching.predict(numbers, batch))
            self._progress.update(min(self._stride, left))
            left -= self._stride
            if self._time_is_up(timer):
                break
        if is_flushed or self.is_stopped:
            self._collector.add(level, batching.finish())
            del self._batchings[level]
        repeats = self._collector.take_repeats(level)
        self._collector.add_traces(level, batching.traces, repeats)
        if (larger := self._fallback.larger[level]) is not None:
            self._waiting[larger] = np.concatenate((self._waiting[larger], repeats))
            self._progress.total += len(repeats)

    def _time_is_up(self, timer: BatchTimer) -> bool:
        """Whether rank 0's time is up, as all ranks agree.  Collective."""
        agreed = self._consensus.exchange(int(timer.is_up()))
        self.is_stopped = agreed is not None and bool(agreed[0])
        return self.is_stopped

    def snapshot(self, is_final: bool) -> PredictionSnapshot | None:
        repeated = self._repeated if len(self._fallback.canvases) > 1 else None
        return self._collector.snapshot(repeated, is_final)

    def close(self) -> None:
        self._consensus.close()


def _labels_on(split: Split, canvas: Canvas, examples: np.ndarray) -> np.ndarray:
    """Returns the labels of examples on the top-left part of the whole canvas, [N, cells]; the rest is cut off."""
    labels = split.read(examples)[1].reshape(len(examples), *split.metadata.canvas)
    return labels[:, : canvas.height, : canvas.width].reshape(len(examples), -1)


class PredictionTime(NamedTuple):
    """Seconds that prediction takes, those of the slowest rank.

    everything: all examples.  first_round: the un-augmented examples.  compiling: before the first batches.
    longest_batch: a batch on the slowest canvas.
    """

    everything: float
    first_round: float
    compiling: float
    longest_batch: float


@torch.inference_mode()
def measure_prediction(
    state: TrainState, split: Split, options: PredictionOptions, fallback: CanvasFallback
) -> PredictionTime:
    """Estimates how long a split takes, from two batches of each canvas whose answers are dropped.  Collective.

    The fraction of a canvas's answers that are cut off here stands for all examples on that canvas.
    """
    _fetch_rows(state, split)
    order, first_round = order_in_rounds(split)
    options = PredictionOptions(options.batch_size, use_ema=False, max_steps=options.max_steps)
    first_levels = fallback.first_levels(order)
    everything = first = compiling = longest = 0.0
    repeated = np.zeros((len(fallback.canvases), 2))  # probably on each canvas: of all examples, of the first round
    for level, canvas in enumerate(fallback.canvases):
        # A canvas on which no example starts is measured, and compiled, too: examples may be repeated on it.
        fits = np.array([canvas.holds(smaller) for smaller in fallback.canvases])[first_levels]
        batches = EvalBatches(
            [split],
            options.batch_size,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            examples=order[fits][: options.batch_size],
            canvas=canvas,
            identified=state.config.arch.is_composed,
        )
        for examples, batch in batches:
            seconds = []
            for _ in range(2):
                started = time.monotonic()
                answers = open_batching(state, canvas, options).predict(examples, batch)
                seconds.append(time.monotonic() - started)
            starting = [(first_levels == level).sum(), (first_levels[:first_round] == level).sum()]
            counts = repeated[level] + starting
            steps = np.ceil(counts / batches.stride)
            everything, first = everything + seconds[1] * steps[0], first + seconds[1] * steps[1]
            if (larger := fallback.larger[level]) is not None and answers is not None:
                repeated[larger] += counts * fallback.is_cut_off(level, answers.tokens).mean()
            compiling += max(0.0, seconds[0] - seconds[1])
            longest = max(longest, seconds[1])
    slowest = np.max(distributed.all_gather_object([everything, first, compiling, longest]), axis=0)
    return PredictionTime(*slowest.tolist())
