"""Scaled dot-product attention by the fastest kernel available.

On a GPU, and in float32, this is PyTorch's fused kernel.  In bfloat16 on a CPU, the backward pass of that kernel takes
most of a training step (PyTorch 2.13).  There a kernel of our own (models/kernels) replaces it, once `install_kernel`
has installed one.

Dimensions: B slots, S sequence, N heads, K width of a head.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_LEN_OF_PLAIN_PRODUCTS = 256
"""The longest sequence that uses plain matrix products in bfloat16 on a CPU, when no kernel of our own is installed."""


class Kernel(Protocol):
    """Computes attention in bfloat16 on a CPU.  Tensors are [B, S, N, K]; the last stride is 1, the others are free."""

    def supports(self, S: int, K: int) -> bool:
        """Returns whether the kernel takes sequences of length S and heads of width K."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns softmax(q k^T / sqrt(K)) v [B, S, N, K] and the log of each softmax's sum, float32 [B, N, S]."""

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gradients of q, k and v [B, S, N, K]."""


_kernel: Kernel | None = None


def install_kernel(kernel: Kernel | None) -> None:
    """Makes `sdpa` use this kernel wherever the kernel supports the shapes; None makes it use PyTorch's own."""
    global _kernel
    _kernel = kernel


def installed_kernel() -> Kernel | None:
    """Returns the kernel that `sdpa` uses, or None for PyTorch's own."""
    return _kernel


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Returns softmax(q k^T / sqrt(K)) v [B, S, N, K] of q, k, v [B, S, N, K].  The softmax is computed in float32."""
    on_cpu = q.device.type == "cpu" and q.dtype == torch.bfloat16
    if on_cpu and _kernel is not None and _kernel.supports(q.shape[1], q.shape[-1]):
        return _attend(q, k, v)[0]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if on_cpu and q.shape[2] <= MAX_LEN_OF_PLAIN_PRODUCTS:
        # The fused kernel's backward pass takes eight times as long as these products.
        scores = (q @ k.transpose(-1, -2)).to(torch.float32) * q.shape[-1] ** -0.5
        return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


@torch.library.custom_op("trm::attend", mutates_args=(), device_types="cpu")
def _attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    assert _kernel is not None
    return _kernel.forward(q, k, v)


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    B, S, N, K = q.shape
    return q.new_empty(B, S, N, K), q.new_empty(B, N, S, dtype=torch.float32)


@torch.library.custom_op("trm::attend_backward", mutates_args=(), device_types="cpu")
def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    assert _kernel is not None
    return _kernel.backward(grad, q, k, v, out, lse)


@_attend_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape)


def _save(ctx: object, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    out, lse = output
    ctx.mark_non_differentiable(lse)  # type: ignore[attr-defined]
    ctx.save_for_backward(*inputs, out, lse)  # type: ignore[attr-defined]


def _gradients(ctx: object, grad: Tensor, grad_lse: Tensor) -> tuple[Tensor, ...]:
    return _attend_backward(grad, *ctx.saved_tensors)  # type: ignore[attr-defined]


_attend.register_autograd(_gradients, setup_context=_save)
