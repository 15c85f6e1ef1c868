"""The blocks that every variant shares.

Dimensions: B slots, S sequence (prefix P, then the canvas), D hidden, N heads, K = D / N, F inner width of the SwiGLU.

Modules own the fp32 weights under their published names; `weights(dtype)` hands out working copies, so that a step
casts each weight once although it applies it many times; the plain functions below them compute.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import mix


def truncated_normal(*shape: int, std: float, generator: torch.Generator | None = None) -> Tensor:
    """A float32 normal draw cut at +-2 sigma of the underlying normal, scaled so that its own deviation is `std`.

    `torch.nn.init.trunc_normal_` leaves 0.88 of the deviation that it is told.
    """
    density = math.exp(-2.0) / math.sqrt(2 * math.pi)
    kept = math.erf(math.sqrt(2.0))
    shrink = math.sqrt(1 - 4 * density / kept)  # deviation of a unit normal cut at +-2
    draw = torch.empty(shape)
    nn.init.trunc_normal_(draw, std=1.0, a=-2.0, b=2.0, generator=generator)
    return draw.mul_(std / shrink)


class Linear(nn.Module):
    """A weight [out, in] without bias.  Initialised by `Network.reset_parameters`."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))


class Embedding(nn.Module):
    """A table [num, D] whose key is `embedding_weight`.  Initialised by `Network.reset_parameters`."""

    def __init__(self, num: int, width: int) -> None:
        super().__init__()
        self.embedding_weight = nn.Parameter(torch.empty(num, width))


class Attention(nn.Module):
    """Full multi-head attention: one fused projection ordered q, k, v by heads; no biases."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.qkv_proj = Linear(hidden_size, 3 * hidden_size)
        self.o_proj = Linear(hidden_size, hidden_size)


def swiglu_inner_width(width: int, expansion: float) -> int:
    """Returns the inner width of a `SwiGLU` of `width`: 2/3 of the expansion, rounded up to a multiple of 256."""
    return -(-round(expansion * width * 2 / 3) // 256) * 256


class SwiGLU(nn.Module):
    """down(silu(gate(h)) * up(h)), gate and up fused, inner width rounded up to a multiple of 256."""

    def __init__(self, width: int, expansion: float) -> None:
        super().__init__()
        inner = swiglu_inner_width(width, expansion)
        self.gate_up_proj = Linear(width, 2 * inner)
        self.down_proj = Linear(inner, width)


class BlockWeights(NamedTuple):
    """Working copies of one block: `mix_in`/`mix_out` are qkv/o, or gate-up/down over the sequence (mlp_t)."""

    mix_in: Tensor
    mix_out: Tensor
    gate_up: Tensor
    down: Tensor


class Block(nn.Module):
    """One post-norm block: mix positions (attention, or a SwiGLU over the sequence), then a SwiGLU over the width."""

    def __init__(self, hidden_size: int, expansion: float, mlp_t_len: int | None = None) -> None:
        super().__init__()
        if mlp_t_len is None:
            self.self_attn = Attention(hidden_size)
        else:
            self.mlp_t = SwiGLU(mlp_t_len, expansion)
        self.mlp = SwiGLU(hidden_size, expansion)

    def weights(self, dtype: torch.dtype) -> BlockWeights:
        if hasattr(self, "mlp_t"):
            mix = (self.mlp_t.gate_up_proj, self.mlp_t.down_proj)
        else:
            mix = (self.self_attn.qkv_proj, self.self_attn.o_proj)
        layers = (*mix, self.mlp.gate_up_proj, self.mlp.down_proj)
        return BlockWeights(*(layer.weight.to(dtype) for layer in layers))


class Reasoner(nn.Module):
    """A stack of blocks: the network f of the paper."""

    def __init__(self, num_layers: int, hidden_size: int, expansion: float, mlp_t_len: int | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(hidden_size, expansion, mlp_t_len) for _ in range(num_layers))

    def weights(self, dtype: torch.dtype) -> list[BlockWeights]:
        return [block.weights(dtype) for block in self.layers]  # type: ignore[operator]


class Rotary(NamedTuple):
    """Cosines and sines [S, K] in float32."""

    cos: Tensor
    sin: Tensor


def rotary(positions: Tensor, head_dim: int, theta: float) -> Rotary:
    """Rotary angles of integer `positions` [S] (RoFormer, arXiv 2104.09864), the halves of a head rotated."""
    angle = _angles(positions, head_dim, theta)
    angle = torch.cat((angle, angle), dim=-1)
    return Rotary(angle.cos(), angle.sin())


def rotary_2d(positions: Tensor, head_dim: int, theta: float, prefix: int, row_stride: int) -> Rotary:
    """Rotary angles that turn one half of the frequencies by a cell's row and the other by its column.

    Args:
        positions: int [S], `prefix` + row_stride * row + column for a cell.  The prefix lies along the row above the
            canvas.
    """
    cell = positions - prefix
    row = torch.where(cell < 0, -1, cell // row_stride)
    column = torch.where(cell < 0, positions, cell % row_stride)
    angle = torch.cat((_angles(row, head_dim // 2, theta), _angles(column, head_dim // 2, theta)), dim=-1)
    angle = torch.cat((angle, angle), dim=-1)
    return Rotary(angle.cos(), angle.sin())


def _angles(positions: Tensor, dims: int, theta: float) -> Tensor:
    """positions [S] times the dims / 2 frequencies theta ** (-2 i / dims), float32 [S, dims / 2]."""
    exponent = torch.arange(0, dims, 2, dtype=torch.float32, device=positions.device) / dims
    return torch.outer(positions.to(torch.float32), 1.0 / theta**exponent)


def rotate(x: Tensor, rope: Rotary) -> Tensor:
    """Applies rotary angles to x [B, S, N, K], in float32."""
    wide = x.to(torch.float32)
    first, second = wide.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (wide * rope.cos[:, None] + turned * rope.sin[:, None]).to(x.dtype)


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axis, computed in float32, without a learned scale."""
    wide = x.to(torch.float32)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def attention(h: Tensor, qkv_proj: Tensor, o_proj: Tensor, num_heads: int, rope: Rotary | None) -> Tensor:
    """Full attention over h [B, S, D]."""
    B, S, D = h.shape
    q, k, v = F.linear(h, qkv_proj).view(B, S, 3, num_heads, D // num_heads).unbind(2)
    if rope is not None:
        q, k = rotate(q, rope), rotate(k, rope)
    return F.linear(mix(q, k, v).reshape(B, S, D), o_proj)


def swiglu(h: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """down(silu(gate(h)) * up(h)) over the last axis (arXiv 2002.05202)."""
    gate, up = F.linear(h, gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down)


def apply_block(
    h: Tensor, w: BlockWeights, *, num_heads: int, rope: Rotary | None, eps: float, over_sequence: bool
) -> Tensor:
    """h [B, S, D] through one block."""
    if over_sequence:
        t = h.transpose(1, 2)
        h = rms_norm(t + swiglu(t, w.mix_in, w.mix_out), eps).transpose(1, 2)
    else:
        h = rms_norm(h + attention(h, w.mix_in, w.mix_out, num_heads, rope), eps)
    return rms_norm(h + swiglu(h, w.gate_up, w.down), eps)
