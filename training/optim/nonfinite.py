"""Keeps steps whose gradients are not finite from changing anything, without asking the device at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from utils.errors import SettingError


class NonFiniteError(SettingError):
    """A gradient was infinite or not a number."""


def tensor_norms(tensors: list[Tensor]) -> Tensor:
    """Returns the Euclidean norm of each tensor, [len(tensors)], on their device.

    A norm is finite only if every entry of its tensor is.
    """
    norms: Any = torch._foreach_norm(tensors)
    return torch.stack(norms)


class NonFiniteGuard:
    """Decides on the device, after each backward pass, whether the step is made.

    Args:
        skips: leave out a bad step and continue.  Otherwise no step is made from the first bad one on, so that the
            state is that of before when the host learns of it.

    Attributes:
        skipped: int64 [], how many steps were not made.
    """

    def __init__(self, device: torch.device, skips: bool) -> None:
        self.skips = skips
        self.first_bad = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def is_finite(self, step: int, norms: Tensor) -> Tensor:
        """Returns whether step number `step` is to be made: bool [], on the device.

        Args:
            norms: of the gradients (`tensor_norms`), which are summed over ranks, so that all decide alike.
        """
        finite = norms.sum().isfinite()
        self.first_bad.copy_(torch.where((self.first_bad == 0) & ~finite, step, self.first_bad))
        makes = finite if self.skips else finite & (self.first_bad == 0)
        self.skipped += ~makes
        return makes

    def is_bad(self) -> bool:
        """Returns whether the run has to stop.  Waits for the device."""
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
