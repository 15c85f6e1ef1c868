"""Measures what the machine reaches at best: a matrix product and a copy."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.timing import seconds


def matmul_flops(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float:
    """Returns the operations per second of a large matrix product."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / seconds(lambda: a @ b, device, budget=2.0)


def measure(device: torch.device) -> dict[str, Any]:
    cells = 2**28 if device.type == "cuda" else 2**25
    source, target = (torch.zeros(cells, device=device) for _ in range(2))
    return {
        "matrix product bfloat16, TFLOP/s": matmul_flops(device) / 1e12,
        "matrix product float32, TFLOP/s": matmul_flops(device, torch.float32) / 1e12,
        "copy, GB/s": 8 * cells / seconds(lambda: target.copy_(source), device, budget=2.0) / 1e9,
    }
