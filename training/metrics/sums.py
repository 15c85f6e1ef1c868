"""Sums what training steps measure, on the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.losses import METRICS
from utils import collectives


class MetricSums:
    """Sums the metrics of steps on the device.

    `reduce` turns the sums into means, once per line of the log; only then anything is fetched from the device.
    """

    def __init__(self, global_batch_size: int) -> None:
        self.global_batch_size = global_batch_size
        self._clear()

    def _clear(self) -> None:
        self.sums: Tensor | None = None  # [metrics], of this rank
        self.counts: Tensor | None = None  # [2], the gradients' norms and the skipped steps, equal on all ranks
        self.steps = 0

    @torch.no_grad()
    def add(self, metrics: Tensor, norms: Tensor, is_finite: Tensor) -> None:
        """Adds a step.

        Args:
            metrics: [metrics], this rank's sums (`models.losses.METRICS`).
            norms: [tensors], of the network's gradients; empty where the network is frozen.
            is_finite: bool [], whether the step was made; the metrics of others do not count.
        """
        norm = torch.linalg.vector_norm(norms, dtype=torch.float64)
        wide = torch.where(is_finite, metrics, 0).to(torch.float64)
        counts = torch.stack((torch.where(is_finite, norm, 0), (~is_finite).to(torch.float64)))
        if self.sums is None or self.counts is None:
            self.sums, self.counts = wide, counts
        else:
            self.sums, self.counts = self.sums + wide, self.counts + counts
        self.steps += 1

    def reduce(self) -> dict[str, float]:
        """Returns means over ranks and over the steps since the last call.

        Accuracies are fractions of the slots that have just halted, losses are means over all slots, `grad_norm` is a
        mean over steps, `skipped_steps` counts the steps that were left out.  A mean over nothing is not a number.
        Collective; every rank gets the same values.
        """
        if self.sums is None or self.counts is None:
            return {}
        *sums, norms, skipped = torch.cat((collectives.all_reduce_sum(self.sums), self.counts)).tolist()
        named = dict(zip((*METRICS, "q_continue_loss"), sums, strict=False))
        count, made = named.pop("count"), self.steps - round(skipped)

        def mean(total: float, number: float) -> float:
            return total / number if number else math.nan

        means = {
            name: mean(value, made * self.global_batch_size) if name.endswith("loss") else mean(value, count)
            for name, value in named.items()
        }
        self._clear()
        return {"count": count, **means, "grad_norm": mean(norms, made), "skipped_steps": round(skipped)}

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the sums over all ranks since the last line of the log.  Collective."""
        if self.sums is None or self.counts is None:
            return {}
        sums, steps = collectives.all_reduce_sum(self.sums), torch.tensor(self.steps, dtype=torch.int64)
        return {"sums": sums.cpu(), "counts": self.counts.cpu(), "steps": steps}

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Restores the sums: rank 0 takes them, the others begin at zero.  Older checkpoints have no counts."""
        if state:
            self.sums = collectives.only_on_main(state["sums"].to(device))
            self.counts = state.get("counts", torch.zeros(2, dtype=torch.float64)).to(device)
            self.steps = int(state["steps"])
