"""Damped and noisy updates of the latents, and random starts (EqR, github.com/locuslab/EqR).

    z <- damping * z + (1 - damping) * f(z, ..) + noise        at each application of a network f to a latent z

Damping is a property of the network (`arch.damping`).  Noise and random starts disturb training, and predictions only
if these ask for it.

Dimensions: B slots, S sequence, D hidden.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models import draws
from models.recursion import Apply, Latents


class Disturbance(NamedTuple):
    """What disturbs the latents of one step.

    keys: int64 [B], of the slots' examples (`models.draws`).  noise: the deviation of what is added at each update.
    random_starts: whether an example starts from drawn latents in place of the network's initial ones.
    """

    keys: Tensor
    noise: float = 0.0
    random_starts: bool = False

    def start(self, latents: Latents, steps: Tensor) -> Latents:
        """Returns the latents before a step; an example that has made none gets drawn ones if starts are random.

        Each element is drawn from the normal that the initial vectors are drawn from.  Those have one number for all
        places of the sequence.

        Args:
            latents: each [B, S, D].  steps: int [B], those that the slots' examples have made.
        """
        if not self.random_starts:
            return latents
        first = (steps == 0).view(-1, 1, 1)
        return tuple(
            torch.where(first, draws.cut_normal(draws.derive(self.keys, draws.STARTS, i), *z.shape[1:]).to(z.dtype), z)
            for i, z in enumerate(latents)
        )


class Updates:
    """Counts the updates of one step, so that each has noise of its own.

    Args:
        steps: int [B], those that the slots' examples have made before; needed for noise alone.
    """

    def __init__(self, damping: float, disturbance: Disturbance | None, steps: Tensor | None) -> None:
        self.damping, self.made = damping, 0
        self.noise = 0.0 if disturbance is None else disturbance.noise
        if disturbance is not None and self.noise:
            assert steps is not None, "noise differs from step to step"
            self.keys = draws.derive(disturbance.keys, draws.NOISE, steps)

    def of(self, f: Apply) -> Apply:
        """Returns `f` as a function that updates its first argument, damped and with noise."""
        if not (self.damping or self.noise):
            return f

        def update(h: Tensor, injected: Tensor | None) -> Tensor:
            new = f(h, injected).to(torch.float32)
            if self.damping:
                new = self.damping * h.to(torch.float32) + (1 - self.damping) * new
            if self.noise:
                new = new + self.noise * draws.normal(draws.derive(self.keys, self.made), *h.shape[1:])
            self.made += 1
            return new.to(h.dtype)

        return update
