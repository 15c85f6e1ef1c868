"""Says what the puzzle rows of a run take, wherever they would lie, and where they fit: a part of `dry_run=true`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from models.puzzles.rows import BLOCK
from training.launch.words import size_in_words
from training.slots.tables.kinds import averaging_rate, is_sharded, memory_of, recommended_kind, table_bytes
from training.state import TrainState

PAGE = 4096
"""Bytes that a file system gives at once."""


@dataclass(frozen=True)
class TablePlan:
    """What the rows of a run take.

    device, host: bytes of memory of each rank.  copy: bytes of host memory that a checkpoint needs for its copy.
    disk: bytes of the table's file of each rank, at most.  stored: bytes of rows in a checkpoint, at most.
    is_shared: whether checkpoints share what has not changed between them, so that several take hardly more than one.
    """

    device: float = 0.0
    host: float = 0.0
    copy: float = 0.0
    disk: float = 0.0
    stored: float = 0.0
    is_shared: bool = True


def plan_tables(state: TrainState, steps: int) -> TablePlan:
    """Returns what the rows take in a run of so many steps, as the settings place them."""
    config = state.config
    kind, shared = config.puzzle_table, is_sharded(config)
    rows = float(sum(table.num_bytes() for table in state.tables))  # of this rank
    whole = sum(table_bytes(config, table.num, table.width, whole=True) for table in state.tables)
    visited = visited_bytes(state, steps)
    copied = kind == "device" and not shared
    block = sum(BLOCK * table_bytes(config, 1, table.width, whole=True) for table in state.tables)
    return TablePlan(
        device=rows if kind == "device" else 0.0,
        host=rows if kind == "host" else 0.0,
        copy=rows if copied else min(block, whole),
        disk=file_bytes(state, steps) if kind == "disk" else 0.0,
        stored=rows if copied else min(whole, 2 * visited),
        is_shared=not copied,
    )


def visited_bytes(state: TrainState, steps: int) -> float:
    """Returns the bytes of the rows, over all ranks, that so many steps can visit."""
    visits = steps * state.config.global_batch_size
    return sum(table_bytes(state.config, min(table.num, visits), table.width, whole=True) for table in state.tables)


def file_bytes(state: TrainState, steps: int) -> float:
    """Returns the bytes that the file of `puzzle_table=disk` takes at most on each rank, whole pages."""
    visits = steps * state.config.global_batch_size
    copies = 1 if averaging_rate(state.config) is None else 3
    pages = sum(
        copies * min(table.num, visits) * max(PAGE, -(-4 * table.width // PAGE) * PAGE) for table in state.tables
    )
    nominal = sum(table_bytes(state.config, table.num, table.width) for table in state.tables)
    return float(min(pages, nominal))


def describe_tables(state: TrainState, directory: Path, steps: int) -> list[str]:
    """Returns what each kind of table would take in a run of so many steps, and which one is recommended, in lines."""
    config, main = state.config, state.table
    if main is None:
        return []
    needed = sum(table_bytes(config, table.num, table.width) for table in state.tables)
    folder = Path(config.puzzle_table_folder or directory).resolve()
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    device, host = memory_of(state.device), memory_of(torch.device("cpu"))
    file = file_bytes(state, steps)
    has = {"device": device, "host": host, "disk": float(free)}
    takes = {"device": needed, "host": needed, "disk": file}
    where = "each rank stores its part" if is_sharded(config) else "each rank stores all of them"
    kinds = ", ".join(f"{kind} {size_in_words(takes[kind])} of {size_in_words(has[kind])}" for kind in takes)
    kind = recommended_kind(needed, state.device)
    advice, instead = f"puzzle_table={kind}", _fewer_rows(state)
    if takes[kind] > has[kind]:
        advice = f"{instead}, since none of them fits" if instead else f"a disk with {size_in_words(file)} free"
        instead = ""
    fits = takes[config.puzzle_table] <= has[config.puzzle_table]
    visits = min(main.num, steps * config.global_batch_size)
    tables = " and ".join(f"{table.num:,} of width {table.width}" for table in state.tables)
    return [
        f"rows       {tables}, puzzle_table={config.puzzle_table}, {where}"
        + ("" if fits else f": they do not fit, set {advice}" + (f", or {instead}" if instead else "")),
        f"           would take: {kinds}; at most {visits:,} are visited; recommended: {advice}",
    ]


def _fewer_rows(state: TrainState) -> str:
    """Returns the settings with which a run has a row per task alone; empty if it has no more than these."""
    if not state.config.arch.is_composed:
        return "arch.puzzle_embedding=composed for a row per task"
    return "arch.augmentation_rank=0 for a row per task alone" if state.config.arch.augmentation_rank else ""
