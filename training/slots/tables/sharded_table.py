"""A puzzle table of which each rank stores a part: `puzzle_table_shards=ranks`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.puzzles.rows import RowBlock
from models.puzzles.table import PuzzleTable
from utils import collectives, distributed


class ShardedTable(PuzzleTable):
    """Stores, on rank r of R, the rows of the identifiers r, r + R, r + 2R ..; the ranks exchange those of a batch.

    Every rank learns the gradients of the whole batch, as without shards, and updates its own rows alone.  So the
    numbers are those of a whole table, to the bit.  Rows of other ranks are read from, and written to, a spare row, so
    that a step has fixed shapes.

    `gather` is collective.  `gather_averaged` and `gather_raw`, which ranks call at times of their own, know only rows
    that `fetch` has brought.
    """

    def __init__(self, num: int, *arguments: Any, **options: Any) -> None:
        self._rank, self._ranks = distributed.rank(), distributed.world_size()
        self._own = len(range(self._rank, num, self._ranks))
        self._fetched: dict[bool, tuple[Tensor, Tensor]] = {}
        super().__init__(num, *arguments, **options)

    def gather(self, identifiers: Tensor) -> Tensor:
        everyone = self._exchange(collectives.all_gather_rows(identifiers), averaged=False)
        return collectives.local_slice(everyone).requires_grad_()

    def gather_averaged(self, identifiers: Tensor) -> Tensor:
        return self._of_fetched(identifiers, averaged=True)

    def gather_raw(self, identifiers: Tensor) -> Tensor:
        return self._of_fetched(identifiers, averaged=False)

    def fetch(self, identifiers: Tensor) -> None:
        """Brings the rows of `identifiers` [N], which are the same on every rank, to every rank.  Collective."""
        ordered = identifiers.unique()
        self._fetched = {averaged: (ordered, self._exchange(ordered, averaged)) for averaged in (False, True)}

    def _of_fetched(self, identifiers: Tensor, averaged: bool) -> Tensor:
        assert averaged in self._fetched, "call fetch first: ranks would wait for each other"
        known, rows = self._fetched[averaged]
        return rows[torch.searchsorted(known, identifiers.to(known.dtype))]

    def _exchange(self, identifiers: Tensor, averaged: bool) -> Tensor:
        """Returns the rows [N, E] of `identifiers` [N], equal on every rank; each rank adds its own to zeros.

        The sum is one of integers: it keeps every bit, that of a negative zero too.
        """
        rows = super().gather_averaged(identifiers) if averaged else super().gather_raw(identifiers)
        own = (identifiers % self._ranks == self._rank).unsqueeze(1)
        bits = torch.where(own, rows.view(torch.int32), 0)
        return collectives.all_reduce_sum(bits).view(rows.dtype)

    def num_own(self) -> int:
        return self._own

    def num_held(self) -> int:
        return self._own + 1

    def _numbers_of(self, identifiers: Tensor) -> Tensor:
        wanted = super()._numbers_of(identifiers)
        return torch.where(wanted % self._ranks == self._rank, wanted // self._ranks, self._own)

    def _identifiers_of(self, numbers: Tensor) -> Tensor:
        return numbers * self._ranks + self._rank

    def _held_part(self, block: RowBlock) -> RowBlock:
        own = block["identifiers"] % self._ranks == self._rank
        return {name: rows[own] for name, rows in block.items()}
