"""AdamAtan2, the published optimizer of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from training.config import OptimizerConfig


class AdamAtan2:
    """The optimizer of the package `adam-atan2-pytorch` as one function over all tensors.

    It can decide on the device not to step.  Only the device knows whether a gradient is finite; if the host asked for
    it, every step would wait.

    Args:
        parameters: by name, those that are trained.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig) -> None:
        assert parameters
        self.parameters, self.config = dict(parameters), config
        device = next(iter(self.parameters.values())).device
        self.exp_avg = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.exp_avg_sq = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.steps = torch.zeros((), dtype=torch.float64, device=device)
        self._lr = torch.zeros((), dtype=torch.float64, device=device)
        self._update: Callable[..., None] = _update

    def compile(self) -> None:
        """Compiles the update into few kernels, from the next step on."""
        self._update = torch.compile(_update, fullgraph=True, dynamic=False)

    @torch.no_grad()
    def step(self, lr: float, is_finite: Tensor) -> None:
        """Makes one step at rate `lr` if `is_finite` (bool []) is true, else none."""
        self._lr.fill_(lr)  # no copy from the host, no recompilation
        self.steps += is_finite
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        c = self.config
        self._update(
            [self.parameters[name].data for name in names],
            [self.parameters[name].grad for name in names],
            [self.exp_avg[name] for name in names],
            [self.exp_avg_sq[name] for name in names],
            self.steps,
            self._lr,
            is_finite,
            (c.beta1, c.beta2, c.weight_decay, c.atan2_scale),
        )

    def state_dict(self) -> dict[str, Tensor]:
        named = {"steps": self.steps}
        for key in ("exp_avg", "exp_avg_sq"):
            named |= {f"{key}.{name}": value for name, value in getattr(self, key).items()}
        return named


def _update(
    weights: list[Tensor],
    gradients: list[Tensor],
    exp_avg: list[Tensor],
    exp_avg_sq: list[Tensor],
    steps: Tensor,
    lr: Tensor,
    is_finite: Tensor,
    settings: tuple[float, float, float, float],
) -> None:
    """Updates all tensors in place; `steps` counts this step already."""
    beta1, beta2, weight_decay, scale = settings
    correct1 = (1 / (1 - beta1**steps)).to(torch.float32)
    correct2 = (1 / (1 - beta2**steps)).to(torch.float32)
    keep = (1 - lr * weight_decay).to(torch.float32)
    rate = (-lr * scale).to(torch.float32)
    for p, g, m, v in zip(weights, gradients, exp_avg, exp_avg_sq, strict=True):
        m_new = torch.lerp(m, g, 1 - beta1)
        v_new = torch.lerp(v, g * g, 1 - beta2)
        step = torch.atan2(m_new * correct1, (v_new * correct2).sqrt())
        m.copy_(torch.where(is_finite, m_new, m))
        v.copy_(torch.where(is_finite, v_new, v))
        p.copy_(torch.where(is_finite, torch.addcmul(p * keep, step, rate), p))  # rounded once, as published
