"""Keeps steps whose gradients are not finite from touching anything, without asking the device at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from training.optim.optimizers import all_finite


class NonFiniteError(ValueError):
    """A gradient was infinite or not a number."""


class Guard:
    """Decides on the device, after each backward pass, whether the step is made.

    Args:
        skips: go on after a bad step, leaving it out.  Otherwise no step is made from the first bad one on, so that all
            is as it was before it when the host learns of it.
    """

    def __init__(self, device: torch.device, skips: bool) -> None:
        self.skips = skips
        self.first_bad = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def check(self, step: int, gradients: list[Tensor]) -> Tensor:
        """Whether step number `step` is to be made: bool [], on the device.

        Args:
            gradients: summed over ranks, so that all decide alike.
        """
        finite = all_finite(gradients)
        self.first_bad.copy_(torch.where((self.first_bad == 0) & ~finite, step, self.first_bad))
        ok = finite if self.skips else finite & (self.first_bad == 0)
        self.skipped += ~ok
        return ok

    def is_bad(self) -> bool:
        """Whether the run has to stop.  Waits for the device."""
        return bool(self.first_bad) and not self.skips

    def raise_if_bad(self) -> None:
        """Waits for the device.

        Raises:
            NonFiniteError: naming the first bad step, unless bad steps are skipped.
        """
        step = int(self.first_bad)
        if step and not self.skips:
            raise NonFiniteError(
                f"the loss or a gradient of step {step} is not finite; nothing was changed from that step on: go on "
                "from the last checkpoint with a lower lr, or set on_nonfinite=skip"
            )
