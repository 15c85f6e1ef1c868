"""The puzzle embedding table: one row per puzzle, trained by sign descent on the rows of the batch alone.

It is not a parameter of the network.  Whatever holds the rows (device memory here; host memory, a disk, several ranks)
needs only the two verbs `gather` and `apply_gradients`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def sum_per_identifier(identifiers: Tensor, gradients: Tensor) -> Tensor:
    """For each of N rows the sum of `gradients` [N, E] over all rows of the same identifier [N].

    Shapes are fixed and nothing is fetched from the device, as `unique` would: sort, then add up the runs.
    """
    order = torch.argsort(identifiers, stable=True)
    ordered = identifiers[order]
    run = torch.zeros_like(ordered, dtype=torch.int64)
    run[1:] = (ordered[1:] != ordered[:-1]).to(torch.int64).cumsum(0)
    sums = torch.zeros_like(gradients).index_add_(0, run, gradients[order])
    result = torch.empty_like(gradients)
    result[order] = sums[run]
    return result


class PuzzleTable:
    """Rows [num, E] in float32 on one device, zero at the start.

    Args:
        ema_rate: of an exponential moving average of the rows over all steps; None for none.
    """

    def __init__(self, num: int, width: int, device: torch.device | str = "cpu", ema_rate: float | None = None) -> None:
        self.weights = torch.zeros(num, width, device=device)
        self.average = None if ema_rate is None else RowAverage(self.weights, ema_rate)

    def averaged(self, identifiers: Tensor) -> Tensor:
        """The averaged rows of `identifiers` [B], or the rows themselves where none are averaged."""
        identifiers = identifiers.to(torch.int64)
        return self.weights[identifiers] if self.average is None else self.average.rows(identifiers)

    def gather(self, identifiers: Tensor) -> Tensor:
        """Copies of the rows of `identifiers` [B]: a leaf [B, E] that collects a gradient."""
        return self.weights[identifiers.to(torch.int64)].requires_grad_()

    @torch.no_grad()
    def apply_gradients(
        self, identifiers: Tensor, gradients: Tensor, lr: float, weight_decay: float, ok: Tensor | None = None
    ) -> None:
        """Sign descent (arXiv 1802.04434) on the rows named by `identifiers` [N] with `gradients` [N, E].

        Gradients of equal identifiers are added first; then row = row * (1 - lr * weight_decay) - lr * sign(gradient).

        Args:
            ok: bool [], on the device; where it does not hold nothing changes.
        """
        identifiers = identifiers.to(torch.int64)
        sign = sum_per_identifier(identifiers, gradients).sign()
        old = self.weights[identifiers]
        rows = old * (1 - lr * weight_decay) - lr * sign
        if ok is not None:
            rows = torch.where(ok, rows, old)
        # Equal identifiers write equal rows, so that their order does not matter.
        if self.average is not None:
            self.average.update(identifiers, rows, ok)
        self.weights[identifiers] = rows

    def state_dict(self) -> dict[str, Tensor]:
        return {"weights": self.weights} | ({} if self.average is None else self.average.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if state["weights"].shape != self.weights.shape:
            raise ValueError(
                f"the checkpoint's puzzle table has shape {tuple(state['weights'].shape)}, this data set needs "
                f"{tuple(self.weights.shape)}: resume with the data set it was trained on, or reset the rows"
            )
        self.weights.copy_(state["weights"])
        if self.average is not None:
            self.average.load_state_dict(state)


class RowAverage:
    """The exponential moving average of every row over all steps, paid for only by the rows of the batch.

    A row that is in no batch stays as it is, so that its average comes nearer to it by a known factor, which is made up
    for when the row is next seen: the numbers are those of averaging the whole table after every step.

    Args:
        weights: the table's rows, which the table changes.
        rate: average = rate * average + (1 - rate) * row at each step.
    """

    def __init__(self, weights: Tensor, rate: float) -> None:
        self.weights, self.rate = weights, rate
        self.shadow = weights.clone()
        self.seen = torch.zeros(len(weights), dtype=torch.int64, device=weights.device)
        self.step = torch.zeros((), dtype=torch.int64, device=weights.device)

    def rows(self, identifiers: Tensor) -> Tensor:
        """The averages [N, E] at the present step."""
        held = self.weights[identifiers]
        since = (self.step - self.seen[identifiers]).to(torch.float64)
        left = (self.rate**since).to(held.dtype).unsqueeze(1)
        return held + (self.shadow[identifiers] - held) * left

    def update(self, identifiers: Tensor, new: Tensor, ok: Tensor | None) -> None:
        """Counts a step in which the rows of `identifiers` [N] become `new` [N, E], just before they do; none where
        `ok` does not hold."""
        before = self.rows(identifiers)
        made = torch.ones_like(self.step) if ok is None else ok.to(torch.int64)
        after = torch.lerp(before, new, (1 - self.rate))
        self.step += made
        self.shadow[identifiers] = torch.where(made > 0, after, before)
        self.seen[identifiers] = self.step

    def reset(self) -> None:
        """Starts anew from the present rows."""
        self.shadow.copy_(self.weights)
        self.seen.copy_(self.step)

    def state_dict(self) -> dict[str, Tensor]:
        return {"average": self.shadow, "average_seen": self.seen, "average_step": self.step}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if missing := self.state_dict().keys() - state.keys():
            raise ValueError(
                f"the checkpoint has no {sorted(missing)[0]} of the puzzle rows: set ema_puzzle_rows=false"
            )
        for name, value in self.state_dict().items():
            value.copy_(state[name])


@dataclass(frozen=True)
class RowSummary:
    """What rows of new puzzles start from: mean and spread (standard deviation), each [E], of `count` trained rows."""

    mean: Tensor
    spread: Tensor
    count: int

    @classmethod
    def of(cls, rows: Tensor) -> RowSummary | None:
        """Of those of `rows` [num, E] that were trained, which are those that are not zero; None if none is."""
        trained = rows[(rows != 0).any(-1)]
        return cls(trained.mean(0), trained.std(0, correction=0), len(trained)) if len(trained) else None
