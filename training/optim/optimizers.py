"""The network's optimizer.  (Puzzle rows are updated by their table: `models.puzzles.table`.)"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.config import OptimizerConfig
from training.optim.adam_atan2 import AdamAtan2
from training.optim.muon import Muon
from utils.errors import CheckpointError


class NetworkOptimizer:
    """AdamAtan2 over all parameters of the network; with Muon or NorMuon, over those that these do not train.

    Args:
        parameters: by name, those that are trained.
        dtype: in which Muon orthogonalises.

    Attributes:
        lr: the rate of the last step.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, dtype: torch.dtype = torch.float32
    ) -> None:
        assert parameters
        self.parameters, self.config, self.lr = dict(parameters), config, 0.0
        matrices = {name: p for name, p in self.parameters.items() if trains_by_muon(name, p, config)}
        rest = {name: p for name, p in self.parameters.items() if name not in matrices}
        self.muon = Muon(matrices, config, dtype) if matrices else None
        self.adam = AdamAtan2(rest, config) if rest else None

    def compile(self) -> None:
        """Compiles the updates into few kernels, from the next step on."""
        for part in (self.muon, self.adam):
            if part is not None:
                part.compile()

    def gradients(self) -> list[Tensor]:
        """Returns the gradients that the last backward pass has left."""
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def step(self, lr: float, is_finite: Tensor) -> None:
        """Makes one step at rate `lr` if `is_finite` (bool []) is true, else none.  Drops the gradients."""
        self.lr = lr
        if self.muon is not None:
            self.muon.step(lr * ((self.config.muon_lr or self.config.lr) / self.config.lr), is_finite)
        if self.adam is not None:
            self.adam.step(lr, is_finite)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drops the gradients."""
        for p in self.parameters.values():
            p.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        return {
            name: value
            for part in (self.adam, self.muon)
            if part is not None
            for name, value in part.state_dict().items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        mine = self.state_dict()
        if missing := mine.keys() ^ state.keys():
            raise CheckpointError(f"the checkpoint's optimizer does not match the network at {sorted(missing)[:3]}")
        for name, value in mine.items():
            value.copy_(state[name])


def trains_by_muon(name: str, parameter: Tensor, config: OptimizerConfig) -> bool:
    """Returns whether Muon or NorMuon trains this parameter of the network."""
    if config.optimizer == "adam_atan2" or parameter.ndim != 2:
        return False
    return config.muon_matrices == "all" or ".layers." in name


def build_optimizer(
    parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, dtype: torch.dtype = torch.float32
) -> NetworkOptimizer | None:
    """Returns the optimizer of those of `parameters` that are trained; None if there are none."""
    trainable = {name: p for name, p in parameters.items() if p.requires_grad}
    return NetworkOptimizer(trainable, config, dtype) if trainable else None
