"""Runs intervals of training: what both torchrun scripts do between two checkpoints."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from training.checkpoint import CheckpointRecord, CheckpointWriter
from training.data import StepPlan, TrainingData
from training.metrics.reporter import MetricsReporter
from training.slots.micro_batches import StepBatch
from training.state import TrainState
from training.step import train_step
from utils import distributed
from utils.cli import StoppedBySignal
from utils.consensus import FlagConsensus, StopSignals
from utils.metrics_log import MetricsLog
from utils.progress import Progress
from utils.timers import CheckpointTimer, StepTimer


class Interrupted(StoppedBySignal):
    """Training was asked to stop by a signal; its checkpoint is on the disk."""

    def __init__(self, number: int, step: int, path: Path) -> None:
        name = signal.Signals(number).name
        super().__init__(
            number, f"stopped by {name} after step {step}, checkpoint {path}: the same command goes on from there"
        )


def train(
    state: TrainState,
    data: TrainingData,
    plan: StepPlan,
    log: MetricsLog,
    directory: Path,
    record: CheckpointRecord,
    until: float | None = None,
) -> Iterator[int]:
    """Trains from `state.step` to the plan's end.

    After each interval its checkpoint is on the disk; then the number of steps made so far is yielded.

    Args:
        directory: where checkpoints go.
        record: what each of them records besides the state.
        until: `time.monotonic()` on rank 0 at which to end after a checkpoint, wherever the plan is.

    Raises:
        Interrupted: after SIGTERM or SIGINT, when the step is finished and its checkpoint is on the disk.
        NonFiniteError: at a gradient that is not finite, with the state as it was before that step.
    """
    first, position = plan.locate(state.step)
    writer = CheckpointWriter(directory, state.config.keep_last)
    B, made = state.config.global_batch_size, state.step
    with Progress(plan.total_steps, "train", initial=made, items_per_step=B, until=until) as progress:
        reporter = MetricsReporter(state, log, progress, plan.total_steps)
        for interval in range(first, len(plan.interval_steps)):
            # A signal ends the run after a step; between intervals, where an evaluation runs, it ends the process.
            with StopSignals() as signals, closing(data.batches(state.carries, interval, position)) as batches:
                votes = StopVotes(state, signals, until)
                _make_steps(state, batches, plan, plan.end_of(interval), reporter, votes, writer, record)
                is_whole = state.step == plan.end_of(interval)
                path = writer.save(state, record, is_whole, interval=interval + 1 if is_whole else None)
                writer.wait()
                # Collective, so that all ranks also wait until rank 0 has written the checkpoint.
                if stopped_by := max(distributed.all_gather_object(signals.received)):
                    raise Interrupted(stopped_by, state.step, path)
            if votes.agreed.is_late or state.step == plan.total_steps:
                progress.close()
            yield state.step
            if votes.agreed.is_late:
                break
            position = 0
    writer.close()


def _make_steps(
    state: TrainState,
    batches: Iterator[StepBatch],
    plan: StepPlan,
    end: int,
    reporter: MetricsReporter,
    votes: StopVotes,
    writer: CheckpointWriter,
    record: CheckpointRecord,
) -> None:
    """Makes steps until `end`, or until the ranks agree to stop; what comes then is saved by the caller."""
    reporter.restart()
    for batch in reporter.timed(batches):
        train_step(state, batch, plan.total_steps)
        reporter.end_step(batch, writer)
        votes.exchange()
        if state.step == end or votes.agreed.stops:
            break
        if votes.checkpoint_is_due():
            writer.save(state, record, ends_interval=False)
    votes.close()


class Agreed(NamedTuple):
    """What the ranks have agreed on.

    signal: the number of the signal that stops the run, 0 for none.
    passed: how often the checkpoint timer has passed.
    is_late: 1 when time is up.
    """

    signal: int = 0
    passed: int = 0
    is_late: int = 0

    @property
    def stops(self) -> bool:
        return bool(self.signal or self.is_late)


class StopVotes:
    """Decides after each step, for all ranks alike, whether to stop and whether a checkpoint is due.

    Checkpoints are due every `checkpoint_steps` steps and every `checkpoint_minutes`.

    Args:
        until: `time.monotonic()` on rank 0 at which to stop.
    """

    def __init__(self, state: TrainState, signals: StopSignals, until: float | None) -> None:
        self._state, self._signals = state, signals
        self._consensus = FlagConsensus()
        self._checkpoints = CheckpointTimer(state.config.checkpoint_minutes)
        self._steps = StepTimer(until, ahead=self._consensus.delay)
        self._traced = len(state.traced)
        self.agreed = Agreed()

    def exchange(self) -> None:
        """Tells the other ranks what this one knows, and learns what they told some steps before.  Collective."""
        traced = len(self._state.traced)
        is_late = self._steps.is_up(compiled=traced > self._traced) and distributed.is_main()
        self._traced = traced
        found = self._consensus.exchange(self._signals.received, self._checkpoints.count(), int(is_late))
        self.agreed = Agreed() if found is None else Agreed(*found)

    def checkpoint_is_due(self) -> bool:
        """Returns whether to save after this step.  Call it after every step that does not end the interval."""
        every = self._state.config.checkpoint_steps
        is_step = every is not None and self._state.step % every == 0
        return self._checkpoints.is_due(self.agreed.passed) or is_step

    def close(self) -> None:
        """Ends the exchange that is under way."""
        self._consensus.close()
