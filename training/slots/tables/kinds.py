"""Builds the tables of puzzle rows where the settings want them, if they fit there."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from models.puzzles.rows import MemoryRows, Rows
from models.puzzles.table import PuzzleTable
from training.config import TrainConfig
from training.slots.tables.file_rows import FileRows, PlannedRows
from training.slots.tables.sharded_table import ShardedTable
from utils import distributed
from utils.errors import SettingError

FLOAT, INT64 = 4, 8


def build_table(
    config: TrainConfig, num: int, width: int, device: torch.device, directory: Path, fixed: int | None = None
) -> PuzzleTable:
    """Returns a table of `num` rows of `width`, all zero, as `puzzle_table` and `puzzle_table_shards` ask.

    Args:
        directory: the run's folder, where a file goes that `puzzle_table_folder` does not place.
        fixed: the identifier whose row stays zero.

    Raises:
        SettingError: if its memory does not have that much room.
    """
    kind, ema_rate = config.puzzle_table, averaging_rate(config)
    folder = Path(config.puzzle_table_folder or directory)
    place = torch.device("cpu") if kind == "host" else device
    is_planned = getattr(config, "dry_run", False)
    needed = table_bytes(config, num, width)

    def make_rows(held: int, shape: tuple[int, ...], dtype: torch.dtype) -> Rows:
        if is_planned:
            return PlannedRows(held, shape, dtype)
        if kind == "disk":
            return FileRows(held, shape, dtype, folder)
        return MemoryRows(held, shape, dtype, place)

    shards = ShardedTable if is_sharded(config) else PuzzleTable
    if is_planned or kind == "disk":
        return shards(num, width, ema_rate=ema_rate, fixed=fixed, make_rows=make_rows)
    refusal = SettingError(
        f"puzzle_table={kind}: {num:,} rows of {width} need {needed / 1e9:.1f} GB, and {_name_of(place)} has "
        f"{memory_of(place) / 1e9:.1f} GB: set {_remedy(config, num, width, device)}"
    )
    if needed > memory_of(place):
        raise refusal
    try:
        return shards(num, width, ema_rate=ema_rate, fixed=fixed, make_rows=make_rows)
    except (RuntimeError, MemoryError):  # what PyTorch raises where an allocation fails, on CPU and GPU
        raise refusal from None


def averaging_rate(config: TrainConfig) -> float | None:
    """Returns the rate at which the rows are averaged; None if they are not."""
    return config.ema_rate if config.ema and config.ema_puzzle_rows else None


def is_sharded(config: TrainConfig) -> bool:
    """Whether each rank stores a part of the rows."""
    return config.puzzle_table_shards == "ranks" and distributed.world_size() > 1


def table_bytes(config: TrainConfig, num: int, width: int, whole: bool = False) -> float:
    """Returns the bytes of a table's rows, and of their averages, on one rank.

    Args:
        whole: over all ranks, where each stores a part.
    """
    per_row = FLOAT * width if averaging_rate(config) is None else 2 * FLOAT * width + INT64
    return float(num * per_row) / (distributed.world_size() if is_sharded(config) and not whole else 1)


def memory_of(device: torch.device) -> float:
    """Returns the bytes of memory of a device; those of the host are shared by its ranks."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _name_of(device: torch.device) -> str:
    return "the device" if device.type == "cuda" else "each rank of this machine"


def recommended_kind(needed: float, device: torch.device) -> str:
    """Returns the first of device, host and disk with room for `needed` bytes of rows, half of its memory left free.

    Whether a disk has room for those that are visited is not asked.
    """
    places = {"device": device, "host": torch.device("cpu")}
    return next((kind for kind, place in places.items() if needed < memory_of(place) / 2), "disk")


def _remedy(config: TrainConfig, num: int, width: int, device: torch.device) -> str:
    kind = recommended_kind(table_bytes(config, num, width), device)
    return f"puzzle_table={kind}" + ("" if config.arch.is_composed else ", or arch.puzzle_embedding=composed")
