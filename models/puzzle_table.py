"""The puzzle embedding table: one row per puzzle, trained by sign descent on the rows of the batch alone.

It is not a parameter of the network.  Whatever holds the rows (device memory here; host memory, a disk, several ranks)
needs only the two verbs `gather` and `apply_gradients`.
"""

from __future__ import annotations

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
    """Rows [num, E] in float32 on one device, zero at the start."""

    def __init__(self, num: int, width: int, device: torch.device | str = "cpu") -> None:
        self.weights = torch.zeros(num, width, device=device)

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
        self.weights[identifiers] = rows

    def state_dict(self) -> dict[str, Tensor]:
        return {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if state["weights"].shape != self.weights.shape:
            raise ValueError(
                f"the checkpoint's puzzle table has shape {tuple(state['weights'].shape)}, this data set needs "
                f"{tuple(self.weights.shape)}: resume with the data set it was trained on, or reset the rows"
            )
        self.weights.copy_(state["weights"])
