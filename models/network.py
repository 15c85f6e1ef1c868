"""The network: embeddings, one recursion, heads.

Dimensions: B slots, C canvas cells, P prefix tokens, S = P + C, D hidden, V vocabulary, E width of a puzzle row.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from models.arch import ArchConfig
from models.disturbance import Disturbance, Updates
from models.kernels.convolution import DepthwiseConv, Layout
from models.layers import Embedding, Linear, Reasoner, Rotary, computed_once, rotary, rotary_2d, truncated_normal
from models.puzzles.embedding import ComposedEmbedding, ComposedRows
from models.recursion import RECURSIONS, Apply, Depth, Latents

Rows = Tensor | ComposedRows | None
"""What the network gets of the slots' puzzles: rows [B, E], what a composed embedding needs, or nothing."""

NUM_COLOURS = 10
"""The last tokens of a vocabulary are the colours 0 to 9."""


class Output(NamedTuple):
    """latents: new latents [B, S, D] each; logits [B, C, V]; q_halt, q_continue [B] in float32."""

    latents: Latents
    logits: Tensor
    q_halt: Tensor
    q_continue: Tensor


class Network(nn.Module):
    """A tiny recursive model (arXiv 2510.04871) or one of its variants.  One call is one recursion.

    The puzzle rows of the slots are an input.  Their table is outside of the network (`models.puzzles.table`), so what
    works on parameters (data parallelism, averaging, compilation, copies) never touches it.

    Args:
        arch: the architecture.
        vocab_size: number of tokens V.
        seq_len: cells C of the whole canvas.  `mlp_t` and learned positions have weights of that size.  Without
            `mlp_t` the network can also compute a part of the canvas.
        generator: the source of the initial weights.
        row_stride: the distance in position between neighbours in a column; by default a square canvas's width.
    """

    def __init__(
        self,
        arch: ArchConfig,
        vocab_size: int,
        seq_len: int,
        generator: torch.Generator | None = None,
        row_stride: int | None = None,
    ) -> None:
        super().__init__()
        self.arch, self.vocab_size, self.seq_len = arch, vocab_size, seq_len
        side = math.isqrt(seq_len)
        self._width = side if side * side == seq_len else seq_len  # of the whole canvas
        self.row_stride = row_stride or self._width
        self.activation_checkpointing = False  # of each application of a level
        D, S = arch.hidden_size, arch.prefix_len + seq_len
        self.embed_tokens = Embedding(vocab_size, D)
        self.lm_head = Linear(D, vocab_size)
        self.q_head = nn.utils.skip_init(nn.Linear, D, 2)
        if arch.pos_encodings == "learned":
            self.embed_pos = Embedding(S, D)
        self.embed_steps = Embedding(arch.step_embedding, D) if arch.step_embedding else None
        self.depth = Depth(arch.H_cycles, arch.L_cycles)
        build_level = partial(
            Reasoner,
            hidden_size=D,
            num_heads=arch.num_heads,
            expansion=arch.expansion,
            eps=arch.rms_norm_eps,
            mlp_t_len=S if arch.mlp_t else None,
            conv=arch.mlp_conv,
        )
        # trm* and urm have one network, L_level; hrm has two; transformers_baseline has H_level alone.
        self.L_level = None if arch.name == "transformers_baseline" else build_level(arch.L_layers)
        self.H_level = build_level(arch.H_layers) if arch.is_reference else None
        self.puzzle_embedding: ComposedEmbedding | None = None
        if arch.is_composed:
            assert vocab_size > NUM_COLOURS, "a composed embedding needs the tokens of ten colours"
            self.puzzle_embedding = ComposedEmbedding(arch, vocab_size - NUM_COLOURS)
        self.recursion = RECURSIONS[arch.name]
        for name in self.recursion.inits:
            self.register_buffer(name, torch.empty(D))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws every weight again, from truncated normals at +-2 sigma with exact deviation.

        | weight | deviation |
        |---|---|
        | linear layers, lm_head | 1 / sqrt(fan in) |
        | token and position embeddings | 1 / sqrt(D) |
        | initial latents | 1 |
        | q_head | weight 0, bias -5, so that halting is improbable at the start |
        | a composed puzzle embedding | see there |
        | convolution | `arch.mlp_conv_init`, see `DepthwiseConv.draw` |
        | step embeddings | 0: the network starts as one that is not told the step |
        """
        draw = partial(truncated_normal, generator=generator)
        composed = () if self.puzzle_embedding is None else set(self.puzzle_embedding.modules())
        for module in self.modules():
            if module in composed:
                continue
            if module is self.embed_steps:
                module.embedding_weight.zero_()
            elif isinstance(module, Linear):
                module.weight.copy_(draw(*module.weight.shape, std=module.weight.shape[1] ** -0.5))
            elif isinstance(module, Embedding):
                module.embedding_weight.copy_(
                    draw(*module.embedding_weight.shape, std=module.embedding_weight.shape[1] ** -0.5)
                )
            elif isinstance(module, DepthwiseConv):
                module.draw(self.arch.mlp_conv_init, generator)
        for name in self.recursion.inits:
            self.get_buffer(name).copy_(draw(self.arch.hidden_size, std=1.0))
        self.q_head.weight.zero_()
        self.q_head.bias.fill_(-5.0)
        if self.puzzle_embedding is not None:
            self.puzzle_embedding.reset_parameters(generator)

    def initial_latents(self) -> Latents:
        """Returns the vector [D] that fills each latent of a fresh slot, in the working dtype."""
        return tuple(self.get_buffer(name).to(self.arch.dtype) for name in self.recursion.inits)

    def empty_latents(self, slots: int, seq_len: int, device: torch.device | str | None = None) -> Latents:
        """Returns latents of zeros, each [slots, P + seq_len, D].  Refill every slot before use."""
        shape = (slots, self.arch.prefix_len + seq_len, self.arch.hidden_size)
        return tuple(torch.zeros(shape, dtype=self.arch.dtype, device=device) for _ in self.recursion.latents)

    def positions_of(self, height: int, width: int, device: torch.device | str | None = None) -> Tensor:
        """Returns the position of each token of a canvas, int64 [P + height * width].

        The prefix comes first.  Cell (row, column) has position P + row_stride * row + column, as on the whole canvas.
        """
        P = self.arch.prefix_len
        rows = torch.arange(height, device=device).unsqueeze(1) * self.row_stride
        cells = (P + rows + torch.arange(width, device=device)).flatten()
        return torch.cat((torch.arange(P, device=device), cells))

    def _index(self, positions: Tensor) -> Tensor:
        """Returns the index on the whole canvas of each of `positions` [S]."""
        cell = positions - self.arch.prefix_len
        on_whole = self.arch.prefix_len + cell // self.row_stride * self._width + cell % self.row_stride
        return torch.where(cell < 0, positions, on_whole)

    def embed(self, inputs: Tensor, rows: Rows, positions: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
        """Returns e [B, S, D] of token ids [B, C], puzzle rows (None without a table) and the steps made so far [B]."""
        dtype, P, D = self.arch.dtype, self.arch.prefix_len, self.arch.hidden_size
        e = self.embed_tokens(inputs, dtype)
        if P:
            if isinstance(rows, ComposedRows):
                assert self.puzzle_embedding is not None
                numbers = self.puzzle_embedding(rows, self.embed_tokens)
            else:
                numbers = e.new_zeros(len(e), 0) if rows is None else rows
            prefix = F.pad(numbers.to(dtype), (0, P * D - numbers.shape[-1])).view(-1, P, D)
            e = torch.cat((prefix, e), dim=1)
        if self.arch.pos_encodings == "learned":
            learned = self.embed_pos.embedding_weight.to(dtype)
            e = math.sqrt(0.5) * (e + (learned if positions is None else learned[self._index(positions)]))
        if self.embed_steps is not None:
            assert steps is not None, "arch.step_embedding needs to know the steps"
            e = e + self.embed_steps(steps.clamp(max=self.arch.step_embedding - 1), dtype).unsqueeze(1)
        return math.sqrt(D) * e

    def _layout(self, cells: int, positions: Tensor | None, width: int | None) -> Layout:
        """Returns where the places of a canvas of so many cells are.  `positions` and `width` as in `forward`."""
        assert width is not None or cells == self.seq_len, "a part of the canvas needs its width"
        width = width or self._width
        # Without positions a place's position is its index, so rows follow each other without a gap.
        return Layout(self.arch.prefix_len, cells // width, width, positions is None or width == self.row_stride)

    def forward(
        self,
        latents: Latents,
        inputs: Tensor,
        rows: Rows,
        positions: Tensor | None = None,
        width: int | None = None,
        steps: Tensor | None = None,
        disturbance: Disturbance | None = None,
        depth: Depth | None = None,
    ) -> Output:
        """Recurses once from `latents`.

        Args:
            latents: one [B, S, D] per latent of the variant.
            inputs: token ids [B, C], any integer dtype.
            rows: puzzle rows [B, E], what a composed embedding needs, or None without a table.
            positions: int [S], the position of each token (`positions_of`).  The default is the token's index, which is
                right on a canvas that is `row_stride` wide.
            width: columns of the canvas, for `arch.mlp_conv`.  The default is right on the whole canvas.
            steps: int [B], how many steps each slot has made before; `arch.step_embedding` and noise need it.
            disturbance: adds noise to every update.  depth: how deep to recurse in place of `self.depth`.
        """
        arch = self.arch
        e = self.embed(inputs, rows, positions, steps)
        rope = None
        if arch.pos_encodings in ("rope", "rope2d") and not arch.mlp_t:
            if positions is None:
                positions = torch.arange(e.shape[1], device=e.device)
            K = arch.hidden_size // arch.num_heads
            if arch.pos_encodings == "rope":
                rope = rotary(positions, K, arch.rope_theta)
            else:
                rope = rotary_2d(positions, K, arch.rope_theta, arch.prefix_len, self.row_stride)
            rope = Rotary(*(computed_once(table) for table in rope))
        layout = None if arch.mlp_conv == "none" else self._layout(inputs.shape[1], positions, width)
        levels = [self._cast_once(level, rope, layout) for level in (self.L_level, self.H_level) if level is not None]
        updates = Updates(arch.damping, disturbance, steps)
        f_L, f_H = updates.of(levels[0]), updates.of(levels[-1])  # one and the same, but for hrm
        latents = self.recursion.apply(latents, e, f_L, f_H, depth or self.depth)
        z_H = latents[0]
        logits = self.lm_head(z_H[:, arch.prefix_len :])
        q = self.q_head(z_H[:, 0].to(torch.float32))
        return Output(tuple(z.detach() for z in latents), logits, q[:, 0], q[:, 1])

    def _cast_once(self, level: Reasoner, rope: Rotary | None, layout: Layout | None) -> Apply:
        """Returns `level` as a function f(h, injected) that uses weights cast here, however often it is called."""
        weights = {name: weight.to(self.arch.dtype) for name, weight in level.named_parameters()}

        def f(h: Tensor, injected: Tensor | None) -> Tensor:
            return functional_call(level, weights, (h, injected, rope, layout), tie_weights=False)

        def f_recomputed(h: Tensor, injected: Tensor | None) -> Tensor:
            """Computes f; only what goes in is kept until the backward pass, which computes f again."""
            if not torch.is_grad_enabled():
                return f(h, injected)
            return checkpoint(f, h, injected, use_reentrant=False, preserve_rng_state=False)

        return f_recomputed if self.activation_checkpointing else f
