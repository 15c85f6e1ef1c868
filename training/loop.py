"""Runs intervals of training: what both torchrun scripts do between two checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.batches import BatchSampler
from training import checkpoint
from training.state import TrainState
from training.step import MetricSums, train_step
from utils import distributed
from utils.progress import Progress
from utils.runlog import MetricsLog


@dataclass
class Plan:
    """The steps of a run, counted by the sampler's own arithmetic."""

    interval_steps: list[int]

    @classmethod
    def of(cls, sampler: BatchSampler, num_intervals: int) -> Plan:
        steps = [sampler.num_steps(interval) for interval in range(num_intervals)]
        if num_intervals and min(steps) == 0:
            raise ValueError(
                f"one interval of {sampler.epochs_per_interval} epochs has fewer examples than one batch of "
                f"{sampler.global_batch_size}: lower global_batch_size or raise eval_interval"
            )
        return cls(steps)

    @property
    def total_steps(self) -> int:
        return sum(self.interval_steps)

    def locate(self, step: int) -> tuple[int, int]:
        """The interval and the step within it that come after `step` steps."""
        for interval, length in enumerate(self.interval_steps):
            if step < length:
                return interval, step
            step -= length
        return len(self.interval_steps), 0


def train(
    state: TrainState, sampler: BatchSampler, plan: Plan, log: MetricsLog, directory: Path, record: dict[str, Any]
) -> Iterator[int]:
    """Trains from `state.step` to the plan's end.  After each interval its checkpoint is on disk, then the number of
    steps made so far is yielded.

    Args:
        directory: where checkpoints go.
        record: what each of them records besides the state.
    """
    interval, position = plan.locate(state.step)
    B = state.config.global_batch_size
    sums = MetricSums(B)
    with Progress(plan.total_steps, "train", unit="step", initial=state.step, items_per_step=B) as progress:
        while interval < len(plan.interval_steps):
            since, counted_from = time.perf_counter(), state.step
            for batch in sampler.stream(interval, position):
                sums.add(train_step(state, batch, plan.total_steps))
                progress.update(1)
                if state.step % state.config.log_every == 0 or state.step == plan.total_steps:
                    metrics = sums.reduce()  # waits for the device
                    seconds = time.perf_counter() - since
                    rate = (state.step - counted_from) * B / seconds
                    since, counted_from = time.perf_counter(), state.step
                    log.write(state.step, {**metrics, "lr": current_lr(state), "examples_per_second": rate})
                    progress.note(f"loss {metrics['lm_loss']:.3f}, exact {metrics['exact_accuracy']:.1%}")
            if state.step == plan.total_steps:
                progress.close()
            checkpoint.save(state, directory, {**record, "interval": interval + 1})
            interval, position = interval + 1, 0
            yield state.step
    distributed.barrier()


def current_lr(state: TrainState) -> float:
    """The network's rate at the last step (0 where only the rows learn)."""
    return state.optimizer.param_groups[0]["lr"] if state.optimizer is not None else 0.0
