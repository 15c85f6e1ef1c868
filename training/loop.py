"""Runs intervals of training: what both torchrun scripts do between two checkpoints."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from training.buckets.data import TrainingData
from training.checkpoint import CheckpointRecord, CheckpointWriter
from training.optim.schedule import Plan
from training.state import TrainState
from training.step import train_step
from utils import distributed
from utils.consensus import Agreement, StopSignals
from utils.metrics_log import MetricsLog
from utils.progress import Progress
from utils.timers import Alarm, Clock


class Interrupted(Exception):
    """Training was asked to stop by a signal; its checkpoint is on the disk."""

    def __init__(self, number: int, step: int, path: Path) -> None:
        self.signal = signal.Signals(number)
        super().__init__(
            f"stopped by {self.signal.name} after step {step}, checkpoint {path}: the same command goes on from there"
        )


def train(
    state: TrainState,
    data: TrainingData,
    plan: Plan,
    log: MetricsLog,
    directory: Path,
    record: CheckpointRecord,
    until: float | None = None,
) -> Iterator[int]:
    """Trains from `state.step` to the plan's end.  After each interval its checkpoint is on disk, then the number of
    steps made so far is yielded.

    Args:
        directory: where checkpoints go.
        record: what each of them records besides the state.
        until: `time.monotonic()` on rank 0 at which to end after a checkpoint, wherever the plan is.

    Raises:
        Interrupted: after SIGTERM or SIGINT, when the step is finished and its checkpoint on the disk.
        NonFiniteError: at a gradient that is not finite, with the state as it was before that step.
    """
    config, B = state.config, state.config.global_batch_size
    interval, position = plan.locate(state.step)
    writer = CheckpointWriter(directory, config.keep_last)
    with Progress(plan.total_steps, "train", unit="step", initial=state.step, items_per_step=B) as progress:
        while interval < len(plan.interval_steps):
            since, counted_from = time.perf_counter(), state.step
            agreement, clock = Agreement(), Alarm(config.checkpoint_minutes)
            deadline = Clock(until, ahead=agreement.delay)
            with (
                StopSignals() as stop,
                closing(data.steps(state.lanes, interval, position)) as steps,
            ):
                for parts in steps:
                    opened = state.lanes.opened
                    train_step(state, parts, plan.total_steps)
                    progress.update(1)
                    if state.step % config.log_every == 0 or state.step == plan.total_steps:
                        metrics = state.sums.reduce()  # waits for the device
                        if state.guard.is_bad():
                            writer.wait()
                            state.guard.raise_if_bad()
                        rate = (state.step - counted_from) * B / (time.perf_counter() - since)
                        since, counted_from = time.perf_counter(), state.step
                        log.write(state.step, {**metrics, "lr": current_lr(state), "examples_per_second": rate})
                        progress.note(f"loss {metrics['lm_loss']:.3f}, exact {metrics['exact_accuracy']:.1%}")
                    late = int(deadline.is_up(compiled=state.lanes.opened > opened) and distributed.is_main())
                    stopped_by, rung, is_over = agreement.offer(stop.received, clock.rung(), late) or (0, 0, 0)
                    if state.step == sum(plan.interval_steps[: interval + 1]):
                        break  # saved below
                    every = config.checkpoint_steps
                    if stopped_by or is_over or clock.is_new(rung) or (every and state.step % every == 0):
                        path = writer.save(state, record, ends_interval=False)
                        if stopped_by:
                            agreement.close()
                            writer.close()
                            distributed.barrier()
                            raise Interrupted(stopped_by, state.step, path)
                        if is_over:
                            agreement.close()
                            writer.close()
                            distributed.barrier()
                            progress.close()
                            yield state.step
                            return
                agreement.close()
                if state.step == plan.total_steps:
                    progress.close()
                writer.save(state, record, ends_interval=True, interval=interval + 1)
                writer.wait()
                stopped_by = max(distributed.all_gather_object(stop.received))  # and all wait for rank 0's disk
                if stopped_by:
                    raise Interrupted(stopped_by, state.step, directory / f"step_{state.step}")
            interval, position = interval + 1, 0
            yield state.step
    writer.close()


def current_lr(state: TrainState) -> float:
    """The network's rate at the last step (0 where only the rows learn)."""
    return state.optimizer.lr if state.optimizer is not None else 0.0
