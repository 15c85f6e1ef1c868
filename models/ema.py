"""Keeps an exponential moving average of the trainable weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Averages weights after every optimizer step: shadow = rate * shadow + (1 - rate) * weight.

    This is section 4.7 of arXiv 2510.04871.  Only trainable weights are averaged; buffers and the puzzle table are not.
    """

    def __init__(self, network: nn.Module, rate: float) -> None:
        self.rate = rate
        self.parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.shadow = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def reset(self) -> None:
        """Starts the average again from the current weights."""
        for name, p in self.parameters.items():
            self.shadow[name].copy_(p)

    @torch.no_grad()
    def update(self, is_finite: Tensor | None = None) -> None:
        """Moves the average towards the weights, unless `is_finite` (bool [], on the device) is false."""
        shadow: list[Tensor] = list(self.shadow.values())
        weights: list[Tensor] = list(self.parameters.values())
        if is_finite is None:
            torch._foreach_lerp_(shadow, weights, 1 - self.rate)
        else:
            distance = torch._foreach_sub(weights, shadow)  # type: ignore[arg-type]
            torch._foreach_mul_(distance, is_finite * (1 - self.rate))
            torch._foreach_add_(shadow, distance)

    @contextmanager
    def apply(self) -> Iterator[None]:
        """Gives the network its averaged weights within a `with` block, and the raw ones again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, p in self.parameters.items():
            raw = p.detach().clone()
            p.copy_(self.shadow[name])
            self.shadow[name].copy_(raw)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.shadow)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Sets the averages to what `state_dict` returned.

        Raises:
            ValueError: if `state` has other names than the network's trainable weights.
        """
        if missing := self.shadow.keys() ^ state.keys():
            raise ValueError(f"the checkpoint's averaged weights do not match the network at {sorted(missing)[:3]}")
        for name, value in state.items():
            self.shadow[name].copy_(value)
