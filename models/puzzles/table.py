"""The puzzle embedding table: one row per puzzle, or per task if the embedding is composed.  Sign descent trains the
rows of the batch and no others.

The table is not a parameter of the network.  It has two verbs, `gather` and `apply_gradients`.  Here the rows are in
device memory; a table in host memory, on a disk or on several ranks would only need the same two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def sum_per_identifier(identifiers: Tensor, gradients: Tensor) -> Tensor:
    """Returns, for each of N rows, the sum of `gradients` [N, E] over all rows with the same identifier [N].

    It sorts the rows and adds up the runs.  Unlike `unique`, this has fixed shapes and fetches nothing from the device.
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
    """Stores rows [num, E] in float32 on one device.  They start at zero.

    Args:
        ema_rate: the rate of an exponential moving average of the rows over all steps; None keeps no average.
        fixed: the identifier whose row stays zero; None if all are trained.
    """

    def __init__(
        self,
        num: int,
        width: int,
        device: torch.device | str = "cpu",
        ema_rate: float | None = None,
        fixed: int | None = None,
    ) -> None:
        self.fixed = fixed
        self.weights = torch.zeros(num, width, device=device)
        self.average = None if ema_rate is None else RowAverage(self.weights, ema_rate)

    def gather_averaged(self, identifiers: Tensor) -> Tensor:
        """Returns the averaged rows [B, E] of `identifiers` [B], or the rows themselves without an average."""
        identifiers = identifiers.to(torch.int64)
        return self.weights[identifiers] if self.average is None else self.average.gather(identifiers)

    def gather(self, identifiers: Tensor) -> Tensor:
        """Returns copies of the rows of `identifiers` [B], as a leaf [B, E] that collects a gradient."""
        return self.weights[identifiers.to(torch.int64)].requires_grad_()

    @torch.no_grad()
    def apply_gradients(
        self, identifiers: Tensor, gradients: Tensor, lr: float, weight_decay: float, is_finite: Tensor | None = None
    ) -> None:
        """Makes one step of sign descent (arXiv 1802.04434) on the rows of `identifiers` [N] with `gradients` [N, E].

        It adds the gradients of equal identifiers, then sets row = row * (1 - lr * weight_decay) - lr * sign(gradient).

        Args:
            is_finite: bool [], on the device.  If it is false, nothing changes.
        """
        identifiers = identifiers.to(torch.int64)
        sign = sum_per_identifier(identifiers, gradients).sign()
        if self.fixed is not None:
            sign = sign * (identifiers != self.fixed).unsqueeze(1)
        old = self.weights[identifiers]
        rows = old * (1 - lr * weight_decay) - lr * sign
        if is_finite is not None:
            rows = torch.where(is_finite, rows, old)
        # Equal identifiers write equal rows, so their order does not matter.
        if self.average is not None:
            self.average.update(identifiers, rows, is_finite)
        self.weights[identifiers] = rows

    def state_dict(self) -> dict[str, Tensor]:
        return {"weights": self.weights} | ({} if self.average is None else self.average.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Sets the rows, and their average if there is one, to what `state_dict` returned.

        Raises:
            ValueError: if the rows have another shape, or an average is needed and `state` has none.
        """
        if state["weights"].shape != self.weights.shape:
            raise ValueError(
                f"the checkpoint's puzzle table has shape {tuple(state['weights'].shape)}, this data set needs "
                f"{tuple(self.weights.shape)}: resume with the data set it was trained on, or reset the rows"
            )
        self.weights.copy_(state["weights"])
        if self.average is not None:
            self.average.load_state_dict(state)


class RowAverage:
    """Averages every row over all steps, but computes only on the rows of the batch.

    A row that is not in the batch does not change, so its average moves towards it by a known factor per step.  When
    the row is next used, the factors of all missed steps are applied at once.  The result equals averaging the whole
    table after every step.

    Args:
        weights: the table's rows, which the table changes.
        rate: at each step, average = rate * average + (1 - rate) * row.
    """

    def __init__(self, weights: Tensor, rate: float) -> None:
        self.weights, self.rate = weights, rate
        self.shadow = weights.clone()
        self.seen = torch.zeros(len(weights), dtype=torch.int64, device=weights.device)
        self.step = torch.zeros((), dtype=torch.int64, device=weights.device)

    def gather(self, identifiers: Tensor) -> Tensor:
        """Returns the averages [N, E] of the rows of `identifiers` [N] at the current step."""
        held = self.weights[identifiers]
        since = (self.step - self.seen[identifiers]).to(torch.float64)
        left = (self.rate**since).to(held.dtype).unsqueeze(1)
        return held + (self.shadow[identifiers] - held) * left

    def update(self, identifiers: Tensor, new: Tensor, is_finite: Tensor | None) -> None:
        """Counts one step in which the rows of `identifiers` [N] become `new` [N, E].

        Call it before the rows change.  If `is_finite` is false, it counts nothing.
        """
        before = self.gather(identifiers)
        made = torch.ones_like(self.step) if is_finite is None else is_finite.to(torch.int64)
        after = torch.lerp(before, new, (1 - self.rate))
        self.step += made
        self.shadow[identifiers] = torch.where(made > 0, after, before)
        self.seen[identifiers] = self.step

    def reset(self) -> None:
        """Starts the average again from the current rows."""
        self.shadow.copy_(self.weights)
        self.seen.copy_(self.step)

    def state_dict(self) -> dict[str, Tensor]:
        return {"average": self.shadow, "average_seen": self.seen, "average_step": self.step}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Sets the averages to what `state_dict` returned; other entries of `state` are not looked at.

        Raises:
            ValueError: if an entry is missing.
        """
        if missing := self.state_dict().keys() - state.keys():
            raise ValueError(
                f"the checkpoint has no {sorted(missing)[0]} of the puzzle rows: set ema_puzzle_rows=false"
            )
        for name, value in self.state_dict().items():
            value.copy_(state[name])


@dataclass(frozen=True)
class RowSummary:
    """The mean and the spread (standard deviation), each [E], of `count` trained rows.  New rows start there."""

    mean: Tensor
    spread: Tensor
    count: int

    @classmethod
    def from_rows(cls, rows: Tensor) -> RowSummary | None:
        """Summarises the trained rows of `rows` [num, E], which are those that are not zero; None if there are none."""
        trained = rows[(rows != 0).any(-1)]
        return cls(trained.mean(0), trained.std(0, correction=0), len(trained)) if len(trained) else None
