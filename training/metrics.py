"""The sums of what training steps measure."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.losses import METRICS
from utils import collectives


class MetricSums:
    """Sums the metrics of steps on the device and turns them into means when asked, the one time per line of the log
    that anything is fetched."""

    def __init__(self, global_batch_size: int) -> None:
        self.global_batch_size = global_batch_size
        self.sums: Tensor | None = None
        self.steps = 0

    def add(self, metrics: Tensor) -> None:
        wide = metrics.to(torch.float64)
        self.sums = wide if self.sums is None else self.sums + wide
        self.steps += 1

    def reduce(self) -> dict[str, float]:
        """Means over ranks and over the steps since the last call: shares over the slots that have just halted,
        losses over all slots.  A share of no slots is not a number.  Collective; every rank gets the same values."""
        if self.sums is None:
            return {}
        values = collectives.all_reduce_sum(self.sums).tolist()
        named = dict(zip((*METRICS, "q_continue_loss"), values, strict=False))
        count = named.pop("count")
        slots = self.steps * self.global_batch_size
        means = {
            name: value / slots if name.endswith("loss") else value / count if count else math.nan
            for name, value in named.items()
        }
        self.sums, self.steps = None, 0
        return {"count": count, **means}

    def state_dict(self) -> dict[str, Tensor]:
        """The sums over all ranks since the last line of the log.  Collective."""
        if self.sums is None:
            return {}
        steps = torch.tensor(self.steps, dtype=torch.int64)
        return {"sums": collectives.all_reduce_sum(self.sums).cpu(), "steps": steps}

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Rank 0 takes the sums, the others begin at zero."""
        if state:
            wide = state["sums"].to(device)
            self.sums, self.steps = collectives.only_on_main(wide), int(state["steps"])
