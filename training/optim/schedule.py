"""The learning rate as a plain function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

from dataset.sampling.sampler import BatchSampler


def lr_factor(step: int, warmup: int, total: int, min_ratio: float) -> float:
    """What the base rate is multiplied with at `step` (counted from 1).

    step / warmup while step < warmup, then a cosine from 1 to `min_ratio` at `total` steps; a ratio of 1 is constant.
    """
    if step < warmup:
        return step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


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

    def ends_interval(self, step: int) -> bool:
        """Returns whether an interval ends after `step` steps; a plan without intervals ends at step 0."""
        return step in (list(accumulate(self.interval_steps)) or [0])

    def outlook(self, step: int) -> str:
        """What is left after `step` steps, in words."""
        left = self.total_steps - step
        if left > 0:
            return f"{left} steps to make; the first, on each canvas, takes longer where it is compiled"
        return f"nothing left to train: all {self.total_steps} steps are made"

    def locate(self, step: int) -> tuple[int, int]:
        """The interval and the step within it that come after `step` steps.

        Raises:
            ValueError: if the plan has fewer steps.
        """
        if step > self.total_steps:
            raise ValueError(
                f"{step} steps are made, {self.total_steps} were asked for: "
                "raise epochs, or choose another checkpoint_path"
            )
        for interval, length in enumerate(self.interval_steps):
            if step < length:
                return interval, step
            step -= length
        return len(self.interval_steps), 0
