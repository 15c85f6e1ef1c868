"""The recursion, the augmentation and the encoding once more, plain and slow, to compare the fast ones with.

Written from the paper (arXiv 2510.04871) and the data format alone, one slot or one cell at a time where that is
clearer; shares no code with what it checks.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arch import ArchConfig


def norm(x: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide / (wide.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt()).to(x.dtype)


def rope_tables(S: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin [S, head_dim]."""
    angles = [
        [position / theta ** (2 * (i % (head_dim // 2)) / head_dim) for i in range(head_dim)] for position in range(S)
    ]
    table = torch.tensor(angles, dtype=torch.float64)
    return table.cos().float(), table.sin().float()


class ReferenceTRM(nn.Module):
    """`trm` with rotary positions and attention, a whole step's recursion, casting each weight at each use.

    Args:
        weights: a network's state dict.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, arch: ArchConfig, weights: dict[str, Tensor], seq_len: int) -> None:
        super().__init__()
        assert arch.name == "trm" and arch.pos_encodings == "rope" and not arch.mlp_t
        self.arch = arch
        self.weights = nn.ParameterDict(
            {
                name.replace(".", "/"): nn.Parameter(value.clone(), requires_grad="init" not in name)
                for name, value in weights.items()
            }
        )
        cos, sin = rope_tables(arch.prefix_len + seq_len, arch.hidden_size // arch.num_heads, arch.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def weight(self, name: str) -> Tensor:
        return self.weights[name.replace(".", "/")]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weight(name).to(x.dtype))

    def block(self, h: Tensor, i: int) -> Tensor:
        arch, at = self.arch, f"L_level.layers.{i}"
        B, S, D = h.shape
        N, K = arch.num_heads, D // arch.num_heads
        q, k, v = self.linear(h, f"{at}.self_attn.qkv_proj.weight").view(B, S, 3 * N, K).split(N, dim=2)

        def turn(x: Tensor) -> Tensor:
            low, high = x.float()[..., : K // 2], x.float()[..., K // 2 :]
            turned = torch.cat((-high, low), dim=-1)
            return (x.float() * self.cos[:, None] + turned * self.sin[:, None]).to(x.dtype)

        q, k, v = (x.transpose(1, 2) for x in (turn(q), turn(k), v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, S, D)
        h = norm(h + self.linear(out, f"{at}.self_attn.o_proj.weight"), arch.rms_norm_eps)
        gate, up = self.linear(h, f"{at}.mlp.gate_up_proj.weight").chunk(2, dim=-1)
        return norm(h + self.linear(F.silu(gate) * up, f"{at}.mlp.down_proj.weight"), arch.rms_norm_eps)

    def f(self, h: Tensor, injected: Tensor) -> Tensor:
        h = h + injected
        for i in range(self.arch.L_layers):
            h = self.block(h, i)
        return h

    def forward(self, z_H: Tensor, z_L: Tensor, inputs: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """New z_H, new z_L, logits [B, C, V] and halt, continue [B, 2]."""
        arch = self.arch
        P, D = arch.prefix_len, arch.hidden_size
        tokens = F.embedding(inputs.long(), self.weight("embed_tokens.embedding_weight").to(arch.dtype))
        prefix = F.pad(rows, (0, P * D - rows.shape[1])).view(-1, P, D).to(arch.dtype)
        e = math.sqrt(D) * torch.cat((prefix, tokens), dim=1)
        for h in range(arch.H_cycles):
            with torch.set_grad_enabled(h == arch.H_cycles - 1 and torch.is_grad_enabled()):
                for _ in range(arch.L_cycles):
                    z_L = self.f(z_L, z_H + e)
                z_H = self.f(z_H, z_L)
        q = F.linear(z_H[:, 0].float(), self.weight("q_head.weight"), self.weight("q_head.bias"))
        return z_H.detach(), z_L.detach(), self.linear(z_H[:, P:], "lm_head.weight"), q


def stablemax_loss(logits: Tensor, labels: Tensor, ignore: int) -> Tensor:
    """Mean negative log-probability over the labelled cells of one slot: logits [C, V], labels [C]."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        if label != ignore:
            s = torch.stack([x + 1 if x >= 0 else 1 / (1 - x) for x in row])
            total, count = total - (s[label] / s.sum()).log(), count + 1
    return total / max(count, 1)


def rotate_90(grid: list[list[int]]) -> list[list[int]]:
    """Counter-clockwise: the last column becomes the first row."""
    return [[row[c] for row in grid] for c in reversed(range(len(grid[0])))]


def mirror(grid: list[list[int]]) -> list[list[int]]:
    """Left and right swapped."""
    return [list(reversed(row)) for row in grid]


def transform(grid: list[list[int]], dihedral: int) -> list[list[int]]:
    """A dihedral transform 0..7 of a grid of lists."""
    turns = {0: 0, 1: 1, 2: 2, 3: 3, 4: 0, 5: 2, 6: 3, 7: 1}[dihedral]
    for _ in range(turns):
        grid = rotate_90(grid)
    return mirror(grid) if dihedral >= 4 else grid


def encode_pair(pair: list[list[list[int]]], side: int, row: int, col: int) -> tuple[list[int], list[int]]:
    """Both grids of a pair at (row, col), cell by cell: PAD 0, EOS 1, colour c is c + 2."""
    encoded = []
    for grid in pair:
        h, w = len(grid), len(grid[0])
        canvas = [0] * (side * side)
        for r in range(side):
            for c in range(side):
                i, j = r - row, c - col
                if 0 <= i < h and 0 <= j < w:
                    canvas[r * side + c] = grid[i][j] + 2
                elif (i == h and 0 <= j < w) or (j == w and 0 <= i < h):
                    canvas[r * side + c] = 1
        encoded.append(canvas)
    return encoded[0], encoded[1]


def largest_rectangle(canvas: np.ndarray, side: int) -> tuple[int, int]:
    """Height and width of the largest all-colour rectangle from the top-left corner, by trying all; fewest rows win."""
    cells = canvas.reshape(side, side)
    best = (0, 0)
    for h in range(1, side + 1):
        for w in range(1, side + 1):
            if (cells[:h, :w] >= 2).all() and h * w > best[0] * best[1]:
                best = (h, w)
    return best
