"""The layers that every variant is made of.

Weights are float32.  A layer computes in the dtype of its input, so it casts its weight at each use.  `Network.forward`
applies the same layers many times: it replaces the weights by copies in the working dtype first, and each cast then
costs nothing.

Dimensions: B slots, S sequence (prefix P, then the canvas), D hidden, N heads, K = D / N, F inner width of the SwiGLU.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kernels.attention import sdpa
from models.kernels.convolution import DepthwiseConv, Layout


def truncated_normal(*shape: int, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Draws from a normal cut at +-2 sigma, in float32, scaled so that the result has the deviation `std`.

    `torch.nn.init.trunc_normal_` gives only 0.88 of the deviation that it is asked for.
    """
    density = math.exp(-2.0) / math.sqrt(2 * math.pi)
    kept = math.erf(math.sqrt(2.0))
    shrink = math.sqrt(1 - 4 * density / kept)  # deviation of a unit normal cut at +-2
    draw = torch.empty(shape)
    nn.init.trunc_normal_(draw, std=1.0, a=-2.0, b=2.0, generator=generator)
    return draw.mul_(std / shrink)


class Rotary(NamedTuple):
    """Cosines and sines [S, K] in float32."""

    cos: Tensor
    sin: Tensor


def rotary(positions: Tensor, head_dim: int, theta: float) -> Rotary:
    """Returns the angles of integer `positions` [S] (RoFormer, arXiv 2104.09864) that rotate the halves of a head."""
    angle = _angles(positions, head_dim, theta)
    angle = torch.cat((angle, angle), dim=-1)
    return Rotary(angle.cos(), angle.sin())


def rotary_2d(positions: Tensor, head_dim: int, theta: float, prefix: int, row_stride: int) -> Rotary:
    """Returns rotary angles that turn half of the frequencies by a cell's row and the other half by its column.

    Args:
        positions: int [S], `prefix` + row_stride * row + column for a cell.  The prefix is in the row above
            the canvas.
    """
    cell = positions - prefix
    row = torch.where(cell < 0, -1, cell // row_stride)
    column = torch.where(cell < 0, positions, cell % row_stride)
    angle = torch.cat((_angles(row, head_dim // 2, theta), _angles(column, head_dim // 2, theta)), dim=-1)
    angle = torch.cat((angle, angle), dim=-1)
    return Rotary(angle.cos(), angle.sin())


def _angles(positions: Tensor, dims: int, theta: float) -> Tensor:
    """Returns positions [S] times the dims / 2 frequencies theta ** (-2 i / dims), float32 [S, dims / 2]."""
    exponent = torch.arange(0, dims, 2, dtype=torch.float32, device=positions.device) / dims
    return torch.outer(positions.to(torch.float32), 1.0 / theta**exponent)


def computed_once(x: Tensor) -> Tensor:
    """Returns x, which needs no gradient, as it is.  On a CPU the compiler keeps it in memory.

    Otherwise the compiler computes what depends on little, such as a cosine for each position, again for every element
    that uses it.
    """
    return _kept(x) if torch.compiler.is_compiling() and x.device.type == "cpu" else x


@torch.library.custom_op("trm::kept", mutates_args=(), device_types="cpu")
def _kept(x: Tensor) -> Tensor:
    return x.clone()


@_kept.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def rotate(x: Tensor, rope: Rotary) -> Tensor:
    """Rotates x [B, S, N, K] by rotary angles, in float32."""
    wide = x.to(torch.float32)
    first, second = wide.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (wide * rope.cos[:, None] + turned * rope.sin[:, None]).to(x.dtype)


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """Returns x / sqrt(mean(x^2) + eps) over the last axis, computed in float32, without a learned scale."""
    wide = x.to(torch.float32)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class Linear(nn.Linear):
    """A linear layer without bias that computes in the dtype of its input.

    `Network.reset_parameters` draws the weight [out, in].
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        """Draws nothing, so that building a network takes no number from PyTorch's global generator."""

    def forward(self, h: Tensor) -> Tensor:
        """Maps h [.., in] to [.., out]."""
        return F.linear(h, self.weight.to(h.dtype))


class Embedding(nn.Module):
    """A table [num, D] whose key is `embedding_weight`.  `Network.reset_parameters` draws it."""

    def __init__(self, num: int, width: int) -> None:
        super().__init__()
        self.embedding_weight = nn.Parameter(torch.empty(num, width))

    def forward(self, indices: Tensor, dtype: torch.dtype) -> Tensor:
        """Returns the rows [.., D] of integer `indices` [..] in `dtype`."""
        table = self.embedding_weight.to(dtype)
        if torch.compiler.is_compiling():
            # The compiler's gradient of a look-up adds rows in the order in which threads come.  A product has one
            # order.
            return F.one_hot(indices.to(torch.int64), len(table)).to(dtype) @ table
        return F.embedding(indices.to(torch.int32), table)


class Attention(nn.Module):
    """Full multi-head attention without biases.  One projection gives q, k and v, in this order, each by heads."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv_proj = Linear(hidden_size, 3 * hidden_size)
        self.o_proj = Linear(hidden_size, hidden_size)

    def forward(self, h: Tensor, rope: Rotary | None) -> Tensor:
        """Attends over h [B, S, D]; `rope` turns q and k."""
        B, S, D = h.shape
        q, k, v = self.qkv_proj(h).view(B, S, 3, self.num_heads, D // self.num_heads).unbind(2)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        return self.o_proj(sdpa(q, k, v).reshape(B, S, D))


def swiglu_inner_width(width: int, expansion: float) -> int:
    """Returns the inner width of a `SwiGLU` of `width`: 2/3 of the expansion, rounded up to a multiple of 256."""
    return -(-round(expansion * width * 2 / 3) // 256) * 256


class SwiGLU(nn.Module):
    """down(silu(gate(h)) * up(h)) (arXiv 2002.05202).  One projection gives gate and up.

    The inner width F is about expansion * 2/3 * width, rounded up to a multiple of 256.
    """

    def __init__(self, width: int, expansion: float) -> None:
        super().__init__()
        inner = swiglu_inner_width(width, expansion)
        self.gate_up_proj = Linear(width, 2 * inner)
        self.down_proj = Linear(inner, width)

    def forward(self, h: Tensor) -> Tensor:
        """Maps h [.., width] to [.., width]."""
        return self.down_proj(self.gated(h))

    def gated(self, h: Tensor) -> Tensor:
        """Returns silu(gate(h)) * up(h) [.., F]."""
        gate, up = self.gate_up_proj(h).chunk(2, dim=-1)
        return F.silu(gate) * up


class ConvSwiGLU(SwiGLU):
    """down(silu(conv(silu(gate(h)) * up(h)))) (arXiv 2512.14693): places mix with their neighbours before the end.

    Args:
        conv: the kind of convolution, see `DepthwiseConv`.
    """

    def __init__(self, width: int, expansion: float, conv: str) -> None:
        super().__init__(width, expansion)
        self.dwconv = DepthwiseConv(self.down_proj.in_features, conv)

    def forward(self, h: Tensor, layout: Layout | None = None) -> Tensor:
        """Maps h [B, S, width] to [B, S, width].  `layout` says where the places are; None: in one line."""
        layout = layout or Layout(0, 1, h.shape[1], True)
        return self.down_proj(F.silu(self.dwconv(self.gated(h), layout)))


class Block(nn.Module):
    """One post-norm block: attention over the sequence, then a SwiGLU over the width.

    Args:
        eps: what every norm adds to the mean square.
        mlp_t_len: the length S of the sequence, to replace attention by a SwiGLU over the sequence; None for attention.
        conv: the kind of convolution in the SwiGLU over the width, see `DepthwiseConv`; none for a plain SwiGLU.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        expansion: float,
        eps: float,
        mlp_t_len: int | None = None,
        conv: str = "none",
    ) -> None:
        super().__init__()
        self.eps = eps
        self.self_attn = Attention(hidden_size, num_heads) if mlp_t_len is None else None
        self.mlp_t = None if mlp_t_len is None else SwiGLU(mlp_t_len, expansion)
        self.mlp = SwiGLU(hidden_size, expansion) if conv == "none" else ConvSwiGLU(hidden_size, expansion, conv)

    def forward(self, h: Tensor, rope: Rotary | None = None, layout: Layout | None = None) -> Tensor:
        """Maps h [B, S, D] to [B, S, D]."""
        if self.self_attn is not None:
            h = rms_norm(h + self.self_attn(h, rope), self.eps)
        if self.mlp_t is not None:
            t = h.transpose(1, 2)  # [B, D, S]
            h = rms_norm(t + self.mlp_t(t), self.eps).transpose(1, 2)
        update = self.mlp(h, layout) if isinstance(self.mlp, ConvSwiGLU) else self.mlp(h)
        return rms_norm(h + update, self.eps)


class Reasoner(nn.Module):
    """A stack of blocks: the network f of the paper."""

    def __init__(self, num_layers: int, **block: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(**block) for _ in range(num_layers))

    def forward(
        self, h: Tensor, injected: Tensor | None, rope: Rotary | None = None, layout: Layout | None = None
    ) -> Tensor:
        """Maps h [B, S, D], with `injected` [B, S, D] added first, through every block."""
        if injected is not None:
            h = h + injected
        for block in self.layers:
            h = block(h, rope, layout)
        return h
