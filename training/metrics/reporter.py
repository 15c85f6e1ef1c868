"""Writes the lines of a run's log."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from dataset.sampling.joined import Batch
from models.recursion import Depth
from training.checkpoint import CheckpointWriter
from training.metrics import cost_model
from training.metrics.cost_model import Workload
from training.metrics.throughput import Throughput, peak_memory_gb
from training.optim.schedule import depth_at
from training.slots.micro_batches import StepBatch
from training.state import TrainState
from utils import distributed
from utils.metrics_log import MetricsLog
from utils.progress import Progress, print0

SLOW_DATA = 0.05
"""The fraction of the time spent waiting for data above which the line of the progress says so."""


class MetricsReporter:
    """Writes a line of metrics every `log_every` steps and after the last one: `metrics.jsonl`, trackers, progress.

    Args:
        log: gets the metrics.
        progress: shows the most important ones.
        total_steps: the steps of the run.
    """

    def __init__(self, state: TrainState, log: MetricsLog, progress: Progress, total_steps: int) -> None:
        self._state, self._log, self._progress, self._total_steps = state, log, progress, total_steps
        self._throughput = Throughput()
        # Rank 0 writes the log.
        self._peak = cost_model.peak_flops(state.device, state.config.arch.dtype) if distributed.is_main() else None
        self._flop: dict[Depth | None, list[float]] = {}
        self._has_written = False

    def restart(self) -> None:
        """Measures speeds from now on."""
        self._throughput.restart()

    def timed(self, batches: Iterable[StepBatch]) -> Iterator[StepBatch]:
        """Yields the batches and counts the time spent waiting for them."""
        return self._throughput.timed(batches)

    def end_step(self, batch: StepBatch, writer: CheckpointWriter) -> None:
        """Counts a step and writes a line where it is due.  Collective.

        Raises:
            NonFiniteError: if the run has to stop, after the checkpoint before is on the disk.
        """
        state = self._state
        micro_batches = [(0, batch)] if isinstance(batch, Batch) else [(each.bucket, each.batch) for each in batch]
        of_canvas = self._flop_of_examples()
        flop = sum(of_canvas[bucket] * len(examples) for bucket, examples in micro_batches)
        self._throughput.add(state.config.global_batch_size, flop)
        self._progress.update(1)
        if state.step % state.config.log_every and state.step != self._total_steps:
            return
        metrics = state.sums.reduce()  # waits for the device
        if state.guard.is_bad():
            writer.wait()
            state.guard.raise_if_bad()
        self._write(metrics)
        self._throughput.restart()

    def _flop_of_examples(self) -> list[float]:
        """Returns the FLOPs of an example on each canvas, as deep as the last step recursed."""
        state = self._state
        depth = depth_at(state.config.depth_curriculum, state.step, self._total_steps)
        if depth not in self._flop:
            arch, vocab = cost_model.at_depth(state.config.arch, depth), state.shape.vocab_size
            examples = [Workload(bucket.canvas.cells, 1) for bucket in state.carries]
            self._flop[depth] = [cost_model.step_flop(arch, [example], vocab=vocab) for example in examples]
        return self._flop[depth]

    def _write(self, metrics: dict[str, float]) -> None:
        state = self._state
        speed = self._throughput.measure(self._peak)
        memory = peak_memory_gb(state.device)
        lr = state.optimizer.lr if state.optimizer is not None else 0.0
        self._log.write(state.step, {**metrics, "lr": lr, **speed, "peak_memory_gb": memory})
        if not self._has_written and self._log.path is not None:
            print0(f"{memory:.1f} GB of memory so far; every metric, step by step: {self._log.path}")
        self._has_written = True
        words = [
            f"{name} {metrics[key]:{form}}"
            for name, key, form in (("loss", "lm_loss", ".3f"), ("exact", "exact_accuracy", ".1%"))
            if not math.isnan(metrics[key])  # it counts slots that have halted, and there may be none
        ]
        words += [f"MFU {speed['mfu']:.0%}"] if "mfu" in speed else []
        if speed["data_wait_fraction"] > SLOW_DATA:
            words.append(f"waits for data {speed['data_wait_fraction']:.0%}")
        self._progress.show(", ".join(words))
        if skipped := round(metrics["skipped_steps"]):
            print0(
                f"warning: {skipped} step(s) up to step {state.step} had a gradient that is not finite and were "
                "skipped (on_nonfinite=skip): lower lr if there are many"
            )
