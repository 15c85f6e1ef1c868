"""The tables of puzzle rows of a run, and which of their rows the slots need.

With `arch.puzzle_embedding=table` there is one table, with a row per puzzle.  A composed embedding has a table with a
row per task; with `arch.augmentation_rank` > 0 it has a second one, with a narrow row per puzzle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
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
from training.slots.tables.kinds import build_table
from training.slots.tables.sharded_table import ShardedTable


class Lookup(NamedTuple):
    """Rows that slots need: their table, their identifiers int [B], and the learning rate of the table."""

    table: PuzzleTable
    identifiers: Tensor
    lr: float


class SavedRows(NamedTuple):
    """The checkpoint that has a table's rows as they were at the end of a tick.

    files: names, later ones go over earlier ones.  stored: rows in them, some perhaps more than once.
    """

    folder: Path
    files: tuple[str, ...]
    stored: int
    tick: int


class RowTables:
    """The tables of a run.

    main: of puzzles or of tasks; None without rows.  residual: of puzzles, beside tasks; None without.
    saved: what the last checkpoint has of each table, by the table's name.

    Args:
        directory: the run's folder, where a table on a disk has its file.
    """

    def __init__(self, config: TrainConfig, shape: DataShape, device: torch.device, directory: Path) -> None:
        self._config, arch = config, config.arch
        self._main: PuzzleTable | None = None
        self.residual: PuzzleTable | None = None
        self.saved: dict[str, SavedRows] = {}
        if arch.puzzle_emb_ndim:
            rows = shape.num_task_rows if arch.is_composed else shape.num_puzzle_identifiers
            assert rows is not None, "a composed embedding needs to know the number of tasks"
            self._main = build_table(config, rows, arch.puzzle_emb_ndim, device, directory)
        if arch.augmentation_rank:
            # Fresh augmentations have no row of their own.  Theirs is the blank one, which stays zero.
            self.residual = build_table(
                config, shape.num_puzzle_identifiers, arch.augmentation_rank, device, directory, fixed=BLANK_IDENTIFIER
            )

    @property
    def main(self) -> PuzzleTable | None:
        return self._main

    @main.setter
    def main(self, table: PuzzleTable | None) -> None:
        self._main = table
        self.saved.pop("puzzle_table", None)

    @property
    def are_copied(self) -> bool:
        """Whether there is room in host memory for a copy of all rows, as a checkpoint needs it."""
        return self._config.puzzle_table == "device"

    @property
    def copied_bytes(self) -> int:
        """The bytes of rows that a checkpoint copies at most, if they are copied whole; else few are."""
        return sum(table.num_bytes() for table in self) if self.are_copied else 0

    def by_name(self) -> dict[str, PuzzleTable]:
        """Returns the tables by their names in a checkpoint."""
        tables = {"puzzle_table": self.main, "residual_table": self.residual}
        return {name: table for name, table in tables.items() if table is not None}

    def __iter__(self) -> Iterator[PuzzleTable]:
        return iter(self.by_name().values())

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

    def fetch(self, puzzles: Tensor, tasks: Tensor | None) -> None:
        """Brings the rows that predictions need to this rank, where each rank stores a part of them.  Collective.

        Args:
            puzzles: identifiers of all puzzles that any rank predicts, int [P].  tasks: of all tasks, likewise.
        """
        of_main = tasks if self._config.arch.is_composed else puzzles
        for table, identifiers in ((self.main, of_main), (self.residual, puzzles)):
            if isinstance(table, ShardedTable):
                assert identifiers is not None, "the data set does not say which tasks it has"
                table.fetch(identifiers)

    def gather_averaged(self, slots: Slots, averaged: bool) -> Rows:
        """Returns what the network gets of the slots' puzzles, without gradients.

        Args:
            averaged: take the averages of the rows, if there are any.
        """
        gathered = [
            each.table.gather_averaged(each.identifiers) if averaged else each.table.gather_raw(each.identifiers)
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
