"""The puzzle rows of a checkpoint, as files that later checkpoints share.

    puzzle_table.safetensors                all rows and their averages
    puzzle_table.step_1000.0.safetensors    rows that had changed by step 1000: their identifiers, int64 [n], the rows
                                            and averages [n, ..], the shape of the table, and the row that all others
                                            are equal to

A row is as the last file that has it says, in the order of steps; without any, it is as it started.  A checkpoint keeps
the files of the one before as hard links and adds one, so that each folder has all that it needs, and removing one
takes nothing from another.  `row_snapshots.py` writes them.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.puzzles.average import averaged_rows
from models.puzzles.rows import BLOCK, RowBlock, RowSummary
from models.puzzles.table import PuzzleTable
from training.checkpoint.record import CheckpointRecord
from utils.errors import CheckpointError

TABLES = ("puzzle_table", "residual_table")
"""The tables that a checkpoint can have, by the names of their files."""

IN_MEMORY = 4e9
"""Bytes of rows that are read at once; more than these are read block by block."""

SHAPE, STARTED_AS, STEP = "shape", "started_as", "average_step"
PER_ROW = ("weights", "average", "average_seen")


def row_files(record: CheckpointRecord, table: str) -> list[str]:
    """Returns the files of a table in a checkpoint, in the order in which they go over each other."""
    order = {}
    for name in record.files:
        if name == f"{table}.safetensors":
            order[name] = (-1, 0)
        elif match := re.fullmatch(rf"{table}\.step_(\d+)\.(\d+)\.safetensors", name):
            order[name] = (int(match[1]), int(match[2]))
    return sorted(order, key=order.__getitem__)


def changed_rows_file(table: str, step: int, number: int) -> str:
    """Returns the name of a file of rows that had changed by a step."""
    return f"{table}.step_{step}.{number}.safetensors"


class StoredRows:
    """The rows of a table in a checkpoint, read block by block.

    Args:
        path: the checkpoint, whose files have been verified.
        average_rate: yield the averages of the rows in their place, if there are any, which were made at this rate.

    Raises:
        CheckpointError: if a file has no rows.
    """

    def __init__(self, path: Path, record: CheckpointRecord, table: str, average_rate: float | None = None) -> None:
        self.path, self.files = path, tuple(row_files(record, table))
        self._rate = average_rate
        self._readers = [self._open(file) for file in self.files]
        newest = self._readers[-1]
        if STARTED_AS in newest.keys():  # noqa: SIM118
            num, width = newest.get_tensor(SHAPE).tolist()
            self.started_as: Tensor = newest.get_tensor(STARTED_AS)
        else:
            num, width = newest.get_slice("weights").get_shape()
            self.started_as = torch.zeros(width)
        self.shape = (int(num), int(width))

    def _open(self, file: str) -> Any:
        try:
            reader = safe_open(self.path / file, framework="pt")
            if "weights" not in reader.keys():  # noqa: SIM118
                raise CheckpointError(f"{self.path / file} has no weights: use an earlier checkpoint")
            return reader
        except SafetensorError as error:
            raise CheckpointError(f"{self.path / file} has no tensors ({error}): use an earlier checkpoint") from None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def stored(self) -> int:
        """How many rows the files have; one that changed several times is counted as often."""
        return sum(reader.get_slice("weights").get_shape()[0] for reader in self._readers)

    @property
    def counters(self) -> dict[str, Tensor]:
        """What there is once per table."""
        newest = self._readers[-1]
        return {STEP: newest.get_tensor(STEP)} if STEP in newest.keys() else {}  # noqa: SIM118

    def blocks(self) -> Iterator[RowBlock]:
        """Yields each row once, the newest first; rows that are as they started may be left out."""
        known = torch.zeros(self.shape[0], dtype=torch.bool)
        for reader in reversed(self._readers):
            for block in _blocks_of(reader):
                identifiers = block["identifiers"]
                keeps = ~known[identifiers]
                known[identifiers] = True
                yield self._chosen({name: value[keeps] for name, value in block.items()})

    def _chosen(self, block: RowBlock) -> RowBlock:
        if self._rate is None:
            return block
        if "average" in block:
            block["weights"] = averaged_rows(
                *(block["weights"], block["average"], block["average_seen"], self.counters[STEP], self._rate)
            )
        return {"identifiers": block["identifiers"], "weights": block["weights"]}

    def dense(self, folder: Path | None = None) -> Tensor:
        """Returns all rows [num, E].

        Args:
            folder: where to put them if they are too many for memory; the file has no name and goes with the tensor.
        """
        num, width = self.shape
        if 4 * num * width <= IN_MEMORY:
            rows = torch.zeros(num, width)
        else:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder) as file:
                rows = torch.from_file(file.name, shared=True, size=num * width).view(num, width)
        if self.started_as.any():
            rows.copy_(self.started_as.expand_as(rows))
        for block in self.blocks():
            rows[block["identifiers"]] = block["weights"]
        return rows

    def summary(self) -> RowSummary | None:
        """Summarises the trained rows, those that were written and are not zero; None if there are none."""
        return RowSummary.from_pieces(block["weights"] for block in self.blocks())


def _blocks_of(reader: Any) -> Iterator[RowBlock]:
    """Yields the rows of a file.  Of a file with all rows, those that are zero are left out."""
    names = [name for name in PER_ROW if name in reader.keys()]  # noqa: SIM118
    slices = {name: reader.get_slice(name) for name in names}
    num = slices["weights"].get_shape()[0]
    listed = reader.get_tensor("identifiers") if "identifiers" in reader.keys() else None  # noqa: SIM118
    for first in range(0, num, BLOCK):
        end = min(first + BLOCK, num)
        block: RowBlock = {name: value[first:end] for name, value in slices.items()}
        if listed is not None:
            yield {"identifiers": listed[first:end], **block}
        else:
            written = torch.stack([(value != 0).view(end - first, -1).any(1) for value in block.values()]).any(0)
            identifiers = torch.nonzero(written).squeeze(1)
            yield {"identifiers": identifiers + first, **{name: value[identifiers] for name, value in block.items()}}


def restore_rows(table: PuzzleTable, stored: StoredRows) -> None:
    """Sets the rows of a table, and their averages, to those of a checkpoint.

    Raises:
        ValueError: if they are of another shape, or averages are needed and not stored.
    """
    table.check_shape(*stored.shape)
    table.fill(stored.started_as)
    table.load_counters(stored.counters)
    for block in stored.blocks():
        table.put(block)
