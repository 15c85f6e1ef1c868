"""A puzzle's embedding composed of its task and its augmentation (`arch.puzzle_embedding=composed`).

The table has one row per task, and the network learns once for all tasks what a dihedral transform and a permutation of
the colours mean.  So nothing need be stored per augmentation, and one that was never seen has a meaning.

Dimensions: B slots, D hidden, E width of a task's row, R rank of the residual rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arch import ArchConfig
from models.layers import Embedding, truncated_normal

TRANSFORMS, COLOURS = 8, 9
"""Dihedral transforms, and colours that a permutation moves: 1 to 9."""

EmbedTokens = Callable[[Tensor, torch.dtype], Tensor]


class ComposedRows(NamedTuple):
    """What puzzles are composed of.

    tasks: rows [B, E] of their tasks.  residuals: rows [B, R] of the puzzles themselves; None at rank 0.
    augmentations: uint8 [B, 11], dihedral transform, then the colour that each of 0..9 becomes.
    """

    tasks: Tensor
    residuals: Tensor | None
    augmentations: Tensor


class ComposedEmbedding(nn.Module):
    """Composes the prefix of each slot.  All its weights are ordinary weights of the network.

    Args:
        first_colour: the token of colour 0; the other colours follow it.
    """

    def __init__(self, arch: ArchConfig, first_colour: int) -> None:
        super().__init__()
        self.arch, self.first_colour = arch, first_colour
        E, D, R = arch.puzzle_emb_ndim, arch.hidden_size, arch.augmentation_rank
        self.residual = nn.utils.skip_init(nn.Linear, R, E, bias=False) if R else None
        if arch.composition == "prefix":
            self.dihedral = Embedding(TRANSFORMS, D)
            self.colours = Embedding(COLOURS, D)
        else:
            slot = E // (COLOURS + 1)
            self.dihedral = Embedding(TRANSFORMS, E)
            self.colours = Embedding(COLOURS, slot)
            self.base = nn.Parameter(torch.empty(E - COLOURS * slot))
            self.film = nn.utils.skip_init(nn.Linear, 2 * E, 2 * E)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws every weight again.

        | weight | prefix | scale_shift |
        |---|---|---|
        | dihedral, colours | truncated normal of deviation 1 / sqrt(D), as tokens | 0 |
        | base | | 0 |
        | film, residual | uniform within 1 / sqrt(fan in) | the same |
        """
        for table in (self.dihedral.embedding_weight, self.colours.embedding_weight):
            if self.arch.composition == "prefix":
                table.copy_(truncated_normal(*table.shape, std=table.shape[1] ** -0.5, generator=generator))
            else:
                table.zero_()
        drawn = [] if self.residual is None else [self.residual.weight]
        if self.arch.composition == "scale_shift":
            self.base.zero_()
            drawn += [self.film.weight, self.film.bias]
        for weight in drawn:
            fan_in = self.film.in_features if weight.ndim == 1 else weight.shape[1]
            weight.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)

    def forward(self, rows: ComposedRows, embed_tokens: EmbedTokens) -> Tensor:
        """Returns the first numbers of each prefix: [B, 11 D] of `prefix`, [B, E] of `scale_shift`.

        Args:
            embed_tokens: the network's embedding of tokens.
        """
        if self.arch.composition == "prefix":
            return self._places(rows, embed_tokens)
        return self._scaled_and_shifted(rows)

    def _places(self, rows: ComposedRows, embed_tokens: EmbedTokens) -> Tensor:
        """Place 0 has the task's row, place 1 the transform, places 2 to 10 what each of the colours 1 to 9 becomes."""
        dtype, D = self.arch.dtype, self.arch.hidden_size
        task = F.pad(self._with_residual(rows.tasks, rows), (0, D - self.arch.puzzle_emb_ndim))
        transform = self.dihedral(rows.augmentations[:, 0], dtype)
        became = embed_tokens(rows.augmentations[:, 2:] + self.first_colour, dtype)  # [B, 9, D]
        colours = became + self.colours.embedding_weight.to(dtype)
        return torch.cat((task.to(dtype), transform, colours.flatten(1)), dim=1)

    def _scaled_and_shifted(self, rows: ComposedRows) -> Tensor:
        """The embedding of CHARM (arXiv 2609.33270): (1 + gamma) * row + beta, in float32.

        gamma and beta are linear in the vectors of the transform and of the colours, the latter in the order in which
        the permutation puts them.
        """
        augmentations = rows.augmentations
        transform = self.dihedral(augmentations[:, 0], torch.float32)  # [B, E]
        slots = self.colours(augmentations[:, 2:] - 1, torch.float32).flatten(1)
        joined = torch.cat((transform, self.base.expand(len(slots), -1), slots), dim=1)  # [B, 2 E]
        gamma, beta = self.film(joined).chunk(2, dim=1)
        return self._with_residual((1 + gamma) * rows.tasks + beta, rows)

    def _with_residual(self, embedding: Tensor, rows: ComposedRows) -> Tensor:
        return embedding if self.residual is None else embedding + self.residual(rows.residuals)
