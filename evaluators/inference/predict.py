"""Predicts examples of a split, all ranks together, the un-augmented ones first, and stops whenever it is told to."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch

from dataset.sampling.eval_batches import EvalBatches
from dataset.sampling.prefetch import prefetch
from dataset.storage import Split
from evaluators.inference.canvas_choice import Ladder
from evaluators.inference.engine import EarlyExit, Traced, runner_for
from evaluators.inference.gather import _Collected, in_rounds
from evaluators.inference.predictions import Predictions
from training.state import TrainState
from utils import distributed
from utils.consensus import FlagConsensus
from utils.progress import Progress
from utils.timers import BatchTimer

PORTIONS = 10
"""In how many portions the augmentations are predicted; after each the predictions so far are handed out."""


def predict(state: TrainState, split: Split, batch_size: int, use_ema: bool = True) -> Predictions | None:
    """Predictions of all examples of `split`: on rank 0 in the split's order, None elsewhere.  Collective."""
    return deque(predict_in_rounds(state, split, batch_size, use_ema), maxlen=1)[0]


@torch.inference_mode()
def seconds_to_predict(
    state: TrainState, split: Split, batch_size: int, max_steps: int | None = None, ladder: Ladder | None = None
) -> tuple[float, float, float]:
    """How long all predictions take, those of the un-augmented examples, and compiling them.  Measured on two batches
    of each canvas that are thrown away; as many as of these are taken to be made again on a larger one.  The slowest
    rank's."""
    ladder = ladder or Ladder((split.metadata.canvas,))
    order, first_round = in_rounds(split)
    starts = ladder.start_of(order)
    steps = max_steps or state.config.arch.halt_max_steps
    totals = np.zeros(3)
    climbing = np.zeros((len(ladder.canvases), 2))  # answers that are probably made again on each canvas
    for lane, canvas in enumerate(ladder.canvases):
        # A canvas that none starts on is measured, and compiled, too: some may have to be predicted again on it.
        held = [canvas.holds(smaller) for smaller in ladder.canvases]
        ranks = distributed.rank(), distributed.world_size()
        batches = EvalBatches([split], batch_size, *ranks, order[np.take(held, starts)][:batch_size], canvas)
        for examples, batch in batches:
            seconds = []
            for _ in range(2):
                started = time.monotonic()
                found = runner_for(state, canvas, steps, use_ema=False).run(examples, batch)
                seconds.append(time.monotonic() - started)
            counts = climbing[lane] + [(starts == lane).sum(), (starts[:first_round] == lane).sum()]
            totals[:2] += seconds[1] * np.ceil(counts / batches.stride)
            if (larger := ladder.larger[lane]) is not None and found is not None:
                climbing[larger] += counts * ladder.to_repeat(lane, found[1]).mean()
            totals[2] += max(0.0, seconds[0] - seconds[1])
            ladder.slowest = max(ladder.slowest, seconds[1])
    slowest = np.max(distributed.all_gather_object(totals), axis=0)
    return float(slowest[0]), float(slowest[1]), float(slowest[2])


@torch.inference_mode()
def predict_in_rounds(
    state: TrainState,
    split: Split,
    batch_size: int,
    use_ema: bool = True,
    *,
    until: float | None = None,
    early_exit: EarlyExit = False,
    max_steps: int | None = None,
    vote_steps: int = 1,
    traced: list[Traced] | None = None,
    ladder: Ladder | None = None,
) -> Iterator[Predictions | None]:
    """Predictions so far: after the un-augmented examples, a few times after that, and at the end.

    Args:
        batch_size: examples per step over all ranks.
        use_ema: predict with the averaged weights where there are any.
        until: `time.monotonic()` at which to stop, as rank 0's clock says; None predicts everything.
        early_exit: an example takes no more steps from the first at which the network would halt ("halt"), or after
            so many equal answers in a row, and the next one takes its place.  False: every example takes all steps,
            as published.
        max_steps: steps of an example at most; None for `arch.halt_max_steps`.
        vote_steps: of each example its answers after so many of its last steps are predictions.
        traced: gets what this rank's un-augmented examples look like after each step, unless they exit early.
        ladder: the canvases, and which one each example starts on; None for the whole one.

    Yields:
        on rank 0 the predictions in the split's order, on whole canvases, None elsewhere.  Collective.
    """
    ladder = ladder or Ladder((split.metadata.canvas,))
    order, first_round = in_rounds(split)
    averaged = state.ema.applied() if use_ema and state.ema is not None else nullcontext()
    steps = max_steps or state.config.arch.halt_max_steps
    clock, agreement, collected = BatchTimer(until, ladder.slowest), FlagConsensus(every=1), _Collected(split, ladder)
    ladder.repeated = 0
    pending = [np.empty(0, dtype=np.int64) for _ in ladder.canvases]
    portions = [order[:first_round], *np.array_split(order[first_round:], PORTIONS)]
    stride = EvalBatches([split], batch_size, world_size=distributed.world_size()).stride
    with averaged, Progress(len(order), "predict", unit="example") as progress:
        for number, portion in enumerate(portions):
            starts = ladder.start_of(portion)
            stop = 0
            for lane, canvas in enumerate(ladder.canvases):
                waiting = np.concatenate((pending[lane], portion[starts == lane]))
                # Only full batches, but at the first round's end, so that every task has votes, and at the last.
                count = len(waiting) if number in (0, PORTIONS) else len(waiting) // stride * stride
                now, pending[lane] = waiting[:count], waiting[count:]
                if not count:
                    continue
                batches = EvalBatches([split], batch_size, distributed.rank(), distributed.world_size(), now, canvas)
                ladder.repeated += int((ladder.start_of(now) < lane).sum())
                runner = runner_for(state, canvas, steps, use_ema, vote_steps, early_exit)
                each: list[Traced] | None = [] if traced is not None and number == 0 else None
                for done, (examples, batch) in enumerate(prefetch(iter(batches)), start=1):
                    collected.add(lane, runner.run(examples, batch, each))
                    progress.update(min(stride, count - (done - 1) * stride))
                    stop = (agreement.exchange(int(clock.is_up())) or (0,))[0]
                    if stop:
                        break
                collected.add(lane, runner.finish())
                again = collected.take_repeats(lane)
                if traced is not None and each:
                    traced += _kept(each, again, ladder, lane)
                if (larger := ladder.larger[lane]) is not None:
                    pending[larger] = np.concatenate((pending[larger], again))
                    progress.total += len(again)
                if stop:
                    break
            if len(portion) or number in (0, PORTIONS):
                yield collected.gather()
                clock.restart()  # what is done with a report is not a batch's time
            if stop:
                break
        agreement.close()


def _kept(each: list[Traced], again: np.ndarray, ladder: Ladder, lane: int) -> list[Traced]:
    """The traces, on whole canvases, of those that are not predicted again."""
    examples, tokens = (np.concatenate(columns) for columns in zip(*each, strict=True))
    keep = ~np.isin(examples, again)
    return [(examples[keep], ladder.on_whole(lane, tokens[keep]))]
