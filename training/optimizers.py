"""The network's optimizer.  (Puzzle rows are updated by their table: `models.puzzle_table`.)"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from adam_atan2_pytorch import AdamAtan2
from pydantic import BaseModel, ConfigDict, Field
from torch import nn


class OptimizerConfig(BaseModel):
    """AdamAtan2 (arXiv 2407.05872) with decoupled weight decay p *= 1 - lr * weight_decay.

    `atan2_scale` is the factor a of the step a * atan2(m, sqrt(v)).  The package `adam-atan2-pytorch`, with which the
    published ARC-AGI-2 rates were tuned, takes 1.27; the CUDA package `adam-atan2` of the original papers takes 1 and
    so makes about 22 % shorter steps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    atan2_scale: float = Field(1.27, gt=0)


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamAtan2 over the trainable ones of `parameters`; the rate is set anew at every step."""
    return AdamAtan2(
        [p for p in parameters if p.requires_grad],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        a=config.atan2_scale,
    )
