"""Decides whether a device's step can be compiled on this machine."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import torch


def not_compiled_because(device: torch.device) -> str:
    """Says what compilation for a device needs and this machine does not have; empty if nothing is missing."""
    # On a CPU the step becomes C++; on a GPU Triton builds a launcher in C.  Both include Python's header.
    compilers = ("gcc", "clang", "cc") if device.type == "cuda" else ("g++",)
    if not any(shutil.which(name) for name in compilers):
        return f"not compiled, and slower for it: no {' or '.join(compilers)} is installed"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "not compiled, and slower for it: Python.h is missing (on Debian and Ubuntu: apt install python3-dev)"
    return ""
