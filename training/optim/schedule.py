"""The steps of a run and the learning rate, each a plain function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

from training.buckets.data import TrainingData
from training.config import RunConfig
from utils.errors import SettingError


def lr_factor(step: int, warmup: int, total: int, min_ratio: float) -> float:
    """Returns what the base rate is multiplied with at `step` (counted from 1).

    It is step / warmup while step < warmup, then a cosine from 1 to `min_ratio` at `total` steps.  A ratio of 1 is
    constant.
    """
    if step < warmup:
        return step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class StepPlan:
    """The steps of a run.  Settings count epochs; everything after this class counts steps.

    interval_steps: the steps of each interval.
    """

    interval_steps: list[int]

    @classmethod
    def from_settings(cls, config: RunConfig, data: TrainingData) -> StepPlan:
        """Counts the steps of all intervals.

        Raises:
            SettingError: if an interval has no step.
        """
        steps = [data.num_steps(interval) for interval in range(config.num_intervals)]
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
