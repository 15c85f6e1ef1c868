"""The tables of puzzle rows of a run, and which of their rows the slots need.

With `arch.puzzle_embedding=table` there is one table, with a row per puzzle.  A composed embedding has a table with a
row per task; with `arch.augmentation_rank` > 0 it has a second one, with a narrow row per puzzle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dataset.data_shape import DataShape
from dataset.encoding import BLANK_IDENTIFIER
from models.act import Slots
from models.network import Rows
from models.puzzles.embedding import ComposedRows
from models.puzzles.table import PuzzleTable
from training.config import TrainConfig


class Lookup(NamedTuple):
    """Rows that slots need: their table, their identifiers int [B], and the learning rate of the table."""

    table: PuzzleTable
    identifiers: Tensor
    lr: float


class RowTables:
    """The tables of a run.

    main: of puzzles or of tasks; None without rows.  residual: of puzzles, beside tasks; None without.
    """

    def __init__(self, config: TrainConfig, shape: DataShape, device: torch.device) -> None:
        self._config, arch = config, config.arch
        rate = config.ema_rate if config.ema and config.ema_puzzle_rows else None
        self.main: PuzzleTable | None = None
        self.residual: PuzzleTable | None = None
        if arch.puzzle_emb_ndim:
            rows = shape.num_task_rows if arch.is_composed else shape.num_puzzle_identifiers
            assert rows is not None, "a composed embedding needs to know the number of tasks"
            self.main = PuzzleTable(rows, arch.puzzle_emb_ndim, device, rate)
        if arch.augmentation_rank:
            # Fresh augmentations have no row of their own.  Theirs is the blank one, which stays zero.
            self.residual = PuzzleTable(
                shape.num_puzzle_identifiers, arch.augmentation_rank, device, rate, fixed=BLANK_IDENTIFIER
            )

    def __iter__(self) -> Iterator[PuzzleTable]:
        return (table for table in (self.main, self.residual) if table is not None)

    def lookups(self, slots: Slots) -> list[Lookup]:
        """Returns which rows the slots need, table by table."""
        found: list[Lookup] = []
        c = self._config
        if self.main is not None:
            identifiers = slots.tasks if c.arch.is_composed else slots.puzzle_identifiers
            assert identifiers is not None, "the batch does not say which tasks it is of"
            found.append(Lookup(self.main, identifiers, c.puzzle_emb_lr))
        if self.residual is not None:
            rate = c.puzzle_emb_lr if c.residual_lr is None else c.residual_lr
            found.append(Lookup(self.residual, slots.puzzle_identifiers, rate))
        return found

    def gather_averaged(self, slots: Slots, averaged: bool) -> Rows:
        """Returns what the network gets of the slots' puzzles, without gradients.

        Args:
            averaged: take the averages of the rows, if there are any.
        """
        gathered = [
            each.table.gather_averaged(each.identifiers)
            if averaged
            else each.table.weights[each.identifiers.to(torch.int64)]
            for each in self.lookups(slots)
        ]
        return join_rows(gathered, slots)


def join_rows(gathered: Sequence[Tensor], slots: Slots) -> Rows:
    """Returns what the network gets of the slots' puzzles.

    Args:
        gathered: rows [B, ..] of each table, in the order of `RowTables.lookups`.
    """
    if not gathered:
        return None
    if slots.augmentations is None:
        return gathered[0]
    return ComposedRows(gathered[0], gathered[1] if len(gathered) > 1 else None, slots.augmentations)
