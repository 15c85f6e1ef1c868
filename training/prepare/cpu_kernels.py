"""Installs what makes a CPU fast: an attention kernel, compiled for this machine.

models/kernels/attention_amx.cpp uses the tile unit (AMX); attention_avx512.cpp beside it needs none.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.kernels import attention
from training.prepare import cpp_extension

SOURCES = Path(attention.__file__).parent

NEEDS = "avx512_bf16"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
TILES = "amx_bf16"


def install(device: torch.device) -> None:
    """Makes a CPU compute attention with our own kernel.

    It needs a CPU with the instructions and a compiler; otherwise nothing changes.
    """
    if device.type == "cpu" and attention.installed_kernel() is None:
        attention.install_kernel(load())
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next step; without glibc nothing changes.

    Otherwise each step hands its large tensors back to the system, and the next one waits for thousands of zeroed
    pages.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest that every glibc takes
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@functools.cache
def load(tiles: bool = True) -> NativeAttention | None:
    """Returns the kernel; None where it cannot be compiled or run.

    Args:
        tiles: use the tile unit where there is one.
    """
    flags = cpp_extension.cpu_flags()
    if NEEDS not in flags:
        return None
    tiles = tiles and TILES in flags
    library = cpp_extension.load(SOURCES / f"attention_{'amx' if tiles else 'avx512'}.cpp")
    if library is None or library.prepare() != int(tiles):
        return load(False) if tiles else None  # the system does not let us use the tile unit
    return NativeAttention(library, tiles)


class NativeAttention:
    """`models.kernels.attention.Kernel` over the compiled library.

    Args:
        tiles: whether it uses the tile unit.
    """

    def __init__(self, library: ctypes.CDLL, tiles: bool) -> None:
        self._library, self.tiles = library, tiles

    def supports(self, S: int, K: int) -> bool:
        return K % 32 == 0

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (_packed(x) for x in (q, k, v))
        if self.tiles and q.shape[1] <= SHORT:
            out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            )
            return out.transpose(1, 2).contiguous(), lse.contiguous()
        B, S, N, K = q.shape
        out, lse = q.new_empty(q.shape), q.new_empty(B, N, S, dtype=torch.float32)
        self._library.attention_forward(*_at(q, k, v), _strides(q, k, v), *_at(out, lse), *_sizes(B, S, N, K))
        return out, lse

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        operands = [_packed(x) for x in (grad, q, k, v, out)]
        lse = lse.contiguous()
        dq, dk, dv = (q.new_empty(q.shape) for _ in range(3))
        self._library.attention_backward(*_at(*operands), _strides(*operands), *_at(lse, dq, dk, dv), *_sizes(*q.shape))
        return dq, dk, dv


SHORT = 100
"""The kernel for the tile unit pads sequences.  Up to this length that costs so much that PyTorch's is faster."""


def _packed(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _at(*tensors: Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(x.data_ptr()) for x in tensors]


def _strides(*tensors: Tensor) -> ctypes.Array[ctypes.c_int64]:
    strides = [step for x in tensors for step in x.stride()]
    return (ctypes.c_int64 * len(strides))(*strides)


def _sizes(*shape: int) -> Sequence[ctypes.c_int64 | int]:
    return [*(ctypes.c_int64(size) for size in shape), torch.get_num_threads()]
