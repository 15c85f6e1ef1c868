"""Small networks, and inputs for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.arch import ArchConfig
from models.network import Network

B, C, V = 3, 20, 12


def arch_of(name: str = "trm", **settings: Any) -> ArchConfig:
    defaults: dict[str, Any] = {
        **{"hidden_size": 32, "num_heads": 4, "H_cycles": 2, "L_cycles": 2, "puzzle_emb_ndim": 32, "puzzle_emb_len": 3},
        **{"halt_max_steps": 4, "forward_dtype": "float32", "H_layers": 1, "L_layers": 2, "expansion": 1.0},
    }
    return ArchConfig(name=name, **(defaults | settings))


def build(arch: ArchConfig, seed: int = 0) -> Network:
    return Network(arch, V, C, torch.Generator().manual_seed(seed))


def inputs_of(seed: int = 0, width: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, V, (B, C), generator=generator), torch.randn(B, width, generator=generator)


def draws_as_when_recorded() -> bool:
    """Whether this PyTorch draws the first weights that the recorded values started from.

    Earlier releases draw a truncated normal in another way: the same seed gives other weights.
    """
    drawn = torch.nn.init.trunc_normal_(torch.empty(64), generator=torch.Generator().manual_seed(0))
    return abs(float(drawn[0]) + 1.1258) < 1e-3


needs_recorded_draws = pytest.mark.skipif(
    not draws_as_when_recorded(), reason="this PyTorch draws other first weights from a seed"
)

needs_cpu_compiler = pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="the compiler of PyTorch 2.6 fails on CPUs, where runs do not use it"
)
