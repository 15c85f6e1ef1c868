"""Copies of the puzzle rows that have changed since the last checkpoint, on their way into the next one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from models.puzzles.rows import RowBlock
from models.puzzles.table import PuzzleTable
from training.checkpoint.row_files import SHAPE, STARTED_AS, changed_rows_file
from training.slots.tables.row_tables import RowTables, SavedRows
from training.slots.tables.sharded_table import ShardedTable
from utils import collectives, distributed, files


@dataclass
class RowsSnapshot:
    """What a checkpoint gets of one table.

    kept: the checkpoint whose files it shares, and which; None for none.
    new: names of its own files.  pending: those of them that are still in memory.
    stored: rows in all files.  tick: until which the files have every change.
    """

    table: str
    kept: SavedRows | None
    new: list[str]
    pending: dict[str, dict[str, Tensor]]
    stored: int
    tick: int

    @property
    def all_files(self) -> tuple[str, ...]:
        """The files of the table in this checkpoint, in order."""
        return (*(() if self.kept is None else self.kept.files), *self.new)

    def write(self, staging: Path) -> None:
        """Completes the files of this table in the folder of a checkpoint that is being written."""
        for name, tensors in self.pending.items():
            save_file(tensors, staging / name)
        if self.kept is not None:
            for name in self.kept.files:
                files.link_or_copy(self.kept.folder / name, staging / name)

    def saved_as(self, target: Path) -> SavedRows:
        """Returns what to remember when the checkpoint is on the disk."""
        return SavedRows(target, self.all_files, self.stored, self.tick)


def snapshot_rows(tables: RowTables, staging: Path, step: int) -> list[RowsSnapshot]:
    """Copies the rows that the next checkpoint needs; an empty list on other ranks than 0.  Collective.

    Rows on the device are copied into memory and written later, all of them if more than half have changed.  Others may
    be more than memory has room for, so they are written to `staging` now, block by block.  When the files would have
    more than twice as many rows as the table has written ones, all of these are written again in place of the files.
    """
    snapshots = []
    for name, table in tables.by_name().items():
        saved = tables.saved.get(name)
        if isinstance(table, ShardedTable):
            # Rank 0 alone knows what is on the disk; the ranks count ticks alike.
            saved = distributed.broadcast_object(saved if _is_there(saved) else None)
            snapshot = _sparse(name, table, saved, staging, step)
        elif not distributed.is_main():
            continue
        else:
            snapshot = (_copied if tables.are_copied else _sparse)(
                name, table, saved if _is_there(saved) else None, staging, step
            )
        if distributed.is_main():
            snapshots.append(snapshot)
    return snapshots


def _is_there(saved: SavedRows | None) -> bool:
    """Whether the files of the last checkpoint can be shared: somebody may have removed them."""
    return saved is not None and all((saved.folder / name).is_file() for name in saved.files)


def _copied(name: str, table: PuzzleTable, saved: SavedRows | None, staging: Path, step: int) -> RowsSnapshot:
    """Copies the changed rows into memory, or all of them."""
    whole = f"{name}.safetensors"
    changed = table.count_written(0 if saved is None else saved.tick)
    further = 0 if saved is None else saved.stored - (table.num if whole in saved.files else 0)
    if saved is None or further + changed > table.num / 2:
        tensors = {key: value.detach().to("cpu", copy=True) for key, value in table.state_dict().items()}
        return RowsSnapshot(name, None, [whole], {whole: tensors}, table.num, table.end_tick())
    new = _new_names(name, saved, step)
    blocks = table.blocks(saved.tick) if changed else ()
    pending = {next(new): _with_table(table, block) for block in blocks}
    return RowsSnapshot(name, saved, list(pending), pending, saved.stored + changed, table.end_tick())


def _sparse(name: str, table: PuzzleTable, saved: SavedRows | None, staging: Path, step: int) -> RowsSnapshot:
    """Writes the changed rows, or all that were ever written."""
    after = 0 if saved is None else saved.tick
    changed, written = (_over_ranks(table, table.count_written(since)) for since in (after, 0))
    if saved is not None and saved.stored + changed > 2 * written:
        saved, after, changed = None, 0, written
    new, names = _new_names(name, saved, step), []
    if changed or saved is None:
        for block in _blocks_over_ranks(table, after):
            names.append(next(new))
            save_file(_with_table(table, block), staging / names[-1])
    stored = changed + (0 if saved is None else saved.stored)
    return RowsSnapshot(name, saved, names, {}, stored, table.end_tick())


def _new_names(table: str, saved: SavedRows | None, step: int) -> Iterator[str]:
    """Yields names of files that the checkpoint does not have yet."""
    taken = () if saved is None else saved.files
    number = 0
    while True:
        name = changed_rows_file(table, step, number)
        if name not in taken:
            yield name
        number += 1


def _with_table(table: PuzzleTable, block: RowBlock) -> dict[str, Tensor]:
    """Returns a block with what a file of changed rows says of its table."""
    block = {name: value.contiguous() for name, value in block.items()}
    counters = {name: value.detach().to("cpu", copy=True) for name, value in table.counters().items()}
    return {**block, **counters, SHAPE: table.shape(), STARTED_AS: table.started_as}


def _over_ranks(table: PuzzleTable, count: int) -> int:
    return sum(distributed.all_gather_object(count)) if isinstance(table, ShardedTable) else count


def _blocks_over_ranks(table: PuzzleTable, after: int) -> Iterator[RowBlock]:
    """Yields the blocks of all ranks on rank 0, and nothing elsewhere; for a whole table, its own.  Collective."""
    if not isinstance(table, ShardedTable):
        yield from table.blocks(after)
        return
    for sender in range(distributed.world_size()):
        own = table.blocks(after) if sender == distributed.rank() else iter(())
        while True:
            block = next(own, None)
            received = collectives.send_to_main(block, sender)
            if received is None:
                break
            if distributed.is_main():
                yield received
