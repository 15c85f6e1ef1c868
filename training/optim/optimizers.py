"""The network's optimizer.  (Puzzle rows are updated by their table: `models.puzzle_table`.)"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.config import OptimizerConfig


class AdamAtan2:
    """`adam-atan2-pytorch`'s optimizer as one function over all tensors that can decide on the device not to step.

    Whether a gradient is finite is known on the device alone; asking for it on the host would make every step wait.

    Args:
        parameters: by name, those that are trained.
        compiled: compile the update into few kernels.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, compiled: bool = False) -> None:
        assert parameters
        self.parameters, self.config = dict(parameters), config
        device = next(iter(self.parameters.values())).device
        self.exp_avg = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.exp_avg_sq = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.steps = torch.zeros((), dtype=torch.float64, device=device)
        self.lr = 0.0
        self._lr = torch.zeros((), dtype=torch.float64, device=device)
        self._update: Callable[..., None] = (
            torch.compile(_update, fullgraph=True, dynamic=False) if compiled else _update
        )

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    @torch.no_grad()
    def step(self, lr: float, ok: Tensor) -> None:
        """One step at rate `lr` where `ok` (bool []) holds, none at all where it does not; forgets the gradients."""
        self.lr = lr
        self._lr.fill_(lr)  # no copy from the host, no recompilation
        self.steps += ok
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        c = self.config
        self._update(
            [self.parameters[name].data for name in names],
            [self.parameters[name].grad for name in names],
            [self.exp_avg[name] for name in names],
            [self.exp_avg_sq[name] for name in names],
            self.steps,
            self._lr,
            ok,
            (c.beta1, c.beta2, c.weight_decay, c.atan2_scale),
        )
        self.zero_grad()

    def zero_grad(self) -> None:
        for p in self.parameters.values():
            p.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        named = {"steps": self.steps}
        for key in ("exp_avg", "exp_avg_sq"):
            named |= {f"{key}.{name}": value for name, value in getattr(self, key).items()}
        return named

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        mine = self.state_dict()
        if missing := mine.keys() ^ state.keys():
            raise ValueError(f"the checkpoint's optimizer does not match the network at {sorted(missing)[:3]}")
        for name, value in mine.items():
            value.copy_(state[name])


def _update(
    weights: list[Tensor],
    gradients: list[Tensor],
    exp_avg: list[Tensor],
    exp_avg_sq: list[Tensor],
    steps: Tensor,
    lr: Tensor,
    ok: Tensor,
    settings: tuple[float, float, float, float],
) -> None:
    """In place; `steps` counts this one already."""
    beta1, beta2, weight_decay, scale = settings
    correct1 = (1 / (1 - beta1**steps)).to(torch.float32)
    correct2 = (1 / (1 - beta2**steps)).to(torch.float32)
    keep = (1 - lr * weight_decay).to(torch.float32)
    rate = (-lr * scale).to(torch.float32)
    for p, g, m, v in zip(weights, gradients, exp_avg, exp_avg_sq, strict=True):
        m_new = torch.lerp(m, g, 1 - beta1)
        v_new = torch.lerp(v, g * g, 1 - beta2)
        step = torch.atan2(m_new * correct1, (v_new * correct2).sqrt())
        m.copy_(torch.where(ok, m_new, m))
        v.copy_(torch.where(ok, v_new, v))
        p.copy_(torch.where(ok, torch.addcmul(p * keep, step, rate), p))  # rounded once, as published


def build_optimizer(
    parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, compiled: bool = False
) -> AdamAtan2 | None:
    """AdamAtan2 over the trainable ones of `parameters`; None if there are none."""
    trainable = {name: p for name, p in parameters.items() if p.requires_grad}
    return AdamAtan2(trainable, config, compiled) if trainable else None


def all_finite(tensors: list[Tensor]) -> Tensor:
    """Whether every entry of every tensor is finite: bool [], on their device."""
    norms: Any = torch._foreach_norm(tensors)
    return torch.stack(norms).sum().isfinite()
