"""The depthwise convolution in a SwiGLU: each channel mixes a place with its neighbours (`arch.mlp_conv`).

Two places are neighbours where they are so on the whole canvas.  So a small canvas needs no other weights.

Dimensions: B slots, S sequence (prefix P, then H x W cells), F channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNELS: dict[str, tuple[int, ...]] = {"raster2": (2,), "raster3": (3,), "canvas3x3": (3, 3)}
"""The shape of the kernel by the value of `arch.mlp_conv`: over the sequence, or over rows and columns."""


class Layout(NamedTuple):
    """Where the places of a sequence are: `prefix` places, then `height` x `width` cells, row by row.

    joined: whether the first cell of a row comes next to the last cell of the row above.  That is so where rows have
    the length of the whole canvas's, and not on a part of it.
    """

    prefix: int
    height: int
    width: int
    joined: bool


class DepthwiseConv(nn.Module):
    """Convolves each channel by itself, over the sequence or over the canvas.  What is outside counts as zero.

    * raster2: a place and the one before it in the sequence (ConvSwiGLU, arXiv 2512.14693).
    * raster3: a place, the one before it and the one after it.
    * canvas3x3: a cell and its eight neighbours on the canvas.  The prefix takes no part and stays as it is.

    In the sequence the prefix comes before the first cell.  Cells are next to each other where their positions are: the
    first cell of a row follows the last of the row above on a whole canvas, and nothing on a part of it.

    `Network.reset_parameters` draws the weight [F, 1, *kernel] and the bias [F].
    """

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.kernel = KERNELS[kind]
        self.weight = nn.Parameter(torch.empty(channels, 1, *self.kernel))
        self.bias = nn.Parameter(torch.empty(channels))

    @torch.no_grad()
    def draw(self, init: str, generator: torch.Generator | None = None) -> None:
        """Sets weight and bias.

        Args:
            init: uniform: between +-1 / sqrt(size of the kernel), as a convolution of PyTorch has it.  identity: the
                convolution changes nothing.
        """
        if init == "identity":
            self.weight.zero_()
            centre = self.weight[:, 0, 1] if len(self.kernel) == 1 else self.weight[:, 0, 1, 1]
            centre.fill_(1)
            self.bias.zero_()
            return
        bound = math.prod(self.kernel) ** -0.5
        for tensor in (self.weight, self.bias):
            tensor.copy_(torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator))

    def forward(self, a: Tensor, layout: Layout) -> Tensor:
        """Maps a [B, S, F] to [B, S, F]."""
        weight, bias = self.weight.to(a.dtype), self.bias.to(a.dtype)
        P, H, W, joined = layout
        prefix, cells = a[:, :P], a[:, P:].unflatten(1, (H, W))
        if len(self.kernel) == 2:
            return torch.cat((prefix, convolve(cells, weight, bias).flatten(1, 2)), dim=1)
        line = weight.unsqueeze(2)
        if joined or H == 1:
            return convolve(a.unsqueeze(1), line, bias).squeeze(1)
        # A place of zeros after each row keeps it apart from the next.
        apart = torch.cat((prefix, F.pad(cells, (0, 0, 0, 1)).flatten(1, 2)), dim=1)
        mixed = convolve(apart.unsqueeze(1), line, bias).squeeze(1)
        return torch.cat((mixed[:, :P], mixed[:, P:].unflatten(1, (H, W + 1))[:, :, :W].flatten(1, 2)), dim=1)


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns the sum over (i, j) of weight[:, 0, i, j] * x[:, row + i - h // 2, column + j - w // 2], plus the bias.

    Args:
        x: [B, rows, columns, F].  weight: [F, 1, h, w], h odd, w odd or 2.  bias: [F].
    """
    if x.device.type == "cpu":
        if weight.shape[-1] == 2:
            weight = F.pad(weight, (0, 1))  # 1 x 3 has a fast kernel, 1 x 2 has none
        return _convolve(x.contiguous(), weight.contiguous(), bias)
    return shifted_products(x, weight, bias)


def shifted_products(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Computes `convolve` by products of elements alone, which a compiler fuses with what comes before and after."""
    _, rows, columns, _ = x.shape
    h, w = weight.shape[2:]
    padded = F.pad(x, (0, 0, w // 2, (w - 1) // 2, h // 2, h // 2))
    total = bias
    for i in range(h):
        for j in range(w):
            total = total + padded[:, i : i + rows, j : j + columns] * weight[:, 0, i, j]
    return total


# On a CPU the convolution of oneDNN is the fastest as long as the channels stay last.  The compiler would move them, so
# the convolution is hidden from it.  Between the two projections of a SwiGLU of 512 channels (64 x 104 places,
# bfloat16, one core, compiled) forward and backward pass take 8 ms without a convolution.  With a kernel of 2 they take
# 17 ms like this and 34 ms by shifted products; with one of 3 x 3, 22 ms and 71 ms.


@torch.library.custom_op("trm::convolve", mutates_args=(), device_types="cpu")
def _convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    h, w = weight.shape[2:]
    out = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=(h // 2, w // 2), groups=x.shape[-1])
    return out.permute(0, 2, 3, 1).contiguous()


@_convolve.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("trm::convolve_backward", mutates_args=(), device_types="cpu")
def _convolve_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    channels, (h, w) = x.shape[-1], weight.shape[2:]
    dx, dweight, dbias = torch.ops.aten.convolution_backward(
        grad.permute(0, 3, 1, 2),
        x.permute(0, 3, 1, 2),
        weight,
        bias_sizes=[channels],
        stride=[1, 1],
        padding=[h // 2, w // 2],
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=channels,
        output_mask=[True, True, True],
    )
    return dx.permute(0, 2, 3, 1).contiguous(), dweight.contiguous(), dbias.contiguous()


@_convolve_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(x.shape[-1])


def _save(ctx: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])  # type: ignore[attr-defined]


def _gradients(ctx: object, grad: Tensor) -> tuple[Tensor, ...]:
    return _convolve_backward(grad.contiguous(), *ctx.saved_tensors)  # type: ignore[attr-defined]


_convolve.register_autograd(_gradients, setup_context=_save)
