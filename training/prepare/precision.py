"""Chooses the dtype of activations for a device: `arch.forward_dtype=auto`."""

from __future__ import annotations

from typing import Literal

import torch

from models.arch import ArchConfig
from training.prepare.cpp_extension import cpu_flags

FIRST_WITH_BFLOAT16 = (8, 0)
"""The compute capability of the first GPUs that compute in bfloat16; older ones emulate it, slowly."""

CPU_FLAGS = ("avx512_bf16", "amx_bf16")
"""What Linux says of a processor that computes in bfloat16."""


def computes_bfloat16(device: torch.device) -> bool:
    """Returns whether a device, or every GPU of this machine if it is one, computes in bfloat16 by itself."""
    if device.type != "cuda":
        return any(flag in cpu_flags() for flag in CPU_FLAGS)
    if torch.version.hip is not None:
        return True
    found = [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]
    return min(found, default=FIRST_WITH_BFLOAT16) >= FIRST_WITH_BFLOAT16


def choose_dtype(arch: ArchConfig, device: torch.device) -> ArchConfig:
    """Returns the settings with bfloat16 or float32 in the place of auto, as is faster on a device."""
    if arch.forward_dtype != "auto":
        return arch
    dtype: Literal["bfloat16", "float32"] = "bfloat16" if computes_bfloat16(device) else "float32"
    return arch.model_copy(update={"forward_dtype": dtype})


def slow_because(arch: ArchConfig, device: torch.device) -> str:
    """Says that a device has to emulate the dtype that is set, and which setting helps; empty if it does not."""
    if arch.forward_dtype != "bfloat16" or computes_bfloat16(device):
        return ""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this processor"
    return f"warning: {name} has no bfloat16 and emulates it, slowly: set arch.forward_dtype=float32, or auto"


def replace_emulated(arch: ArchConfig, device: torch.device) -> ArchConfig:
    """Returns the settings with float32 where the device would have to emulate bfloat16; else as they are."""
    return (
        choose_dtype(arch.model_copy(update={"forward_dtype": "auto"}), device) if slow_because(arch, device) else arch
    )
