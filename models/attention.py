"""Full attention, the fastest way at hand.

On a GPU, and in float32, PyTorch's fused kernels.  In bfloat16 on a CPU their backward pass takes most of a training
step (PyTorch 2.13), so that a kernel of our own (attention.cpp) takes its place where one is installed by `use`.

Dimensions: B slots, S sequence, N heads, K width of a head.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

SHORT_ON_CPU = 256
"""Without a kernel of our own, sequences up to this length are attended to by plain products in bfloat16 on a CPU."""


class Kernel(Protocol):
    """Attention in bfloat16 on a CPU.  Tensors are [B, S, N, K] with any strides whose last is 1."""

    def supports(self, S: int, K: int) -> bool:
        """Whether it takes sequences of S places and heads of width K."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """softmax(q k^T / sqrt(K)) v [B, S, N, K] and the logarithm of each softmax's sum [B, N, S] in float32."""

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of q, k and v [B, S, N, K]."""


_kernel: Kernel | None = None


def use(kernel: Kernel | None) -> None:
    """From now on attends by this kernel where it can; None: as PyTorch does."""
    global _kernel
    _kernel = kernel


def installed() -> Kernel | None:
    """The kernel in use."""
    return _kernel


def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(K)) v of q, k, v [B, S, N, K], weights in float32."""
    on_cpu = q.device.type == "cpu" and q.dtype == torch.bfloat16
    if on_cpu and _kernel is not None and _kernel.supports(q.shape[1], q.shape[-1]):
        return _attend(q, k, v)[0]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if on_cpu and q.shape[2] <= SHORT_ON_CPU:
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
