"""Reads weights to start from, from six kinds of place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from torch import Tensor

from models.puzzles.rows import RowSummary
from training.checkpoint.reader import latest_checkpoint, read_part, read_record, verify_file
from training.checkpoint.record import RECORD, CheckpointRecord
from training.checkpoint.row_files import IN_MEMORY, StoredRows, row_files
from training.checkpoint.sources.exported import is_exported, read_exported, read_exported_record
from training.checkpoint.sources.tensor_files import INDEX, holds_tensors, read_tensors
from utils.errors import CheckpointError

PUBLISHED_TABLE = "puzzle_emb.weights"
"""Name of the puzzle rows in the published code's files."""


EMBEDDING = "embed_tokens.embedding_weight"
ESSENTIAL = (EMBEDDING, "lm_head.weight", "q_head.weight")
"""What every network of TRM, of its variants and of its relatives has."""


@dataclass
class Weights:
    """What a run can start from.

    source: where they come from, for messages.  network: weights under their published names.  puzzle_rows: [num, E],
    if they are stored; those of a large table stay on the disk.  record: what the source says of them.  summary: of the
    trained rows, if that is shared in place of the rows.  residual_rows: [num, R], what a composed embedding stores per
    puzzle.
    """

    source: str
    network: dict[str, Tensor]
    puzzle_rows: Tensor | StoredRows | None
    record: CheckpointRecord = field(default_factory=CheckpointRecord)
    summary: RowSummary | None = None
    residual_rows: Tensor | StoredRows | None = None

    def row_summary(self) -> RowSummary | None:
        """Returns mean and spread of the trained rows, or None if no row was trained."""
        rows = self.puzzle_rows
        if rows is None:
            return self.summary
        return rows.summary() if isinstance(rows, StoredRows) else RowSummary.from_rows(rows)


WHAT_TO_NAME = "name a run's folder, one of its step_N, an exported network or a file of weights"


class WeightsKind(Enum):
    """The places that weights can be read from."""

    CHECKPOINT = "a step_N folder of a run"
    RUN = "a run's folder, for its latest checkpoint"
    EXPORTED = "a folder that was exported to be shared"
    SAFETENSORS = "a .safetensors file, alone or one of several parts"
    TORCH = "a state dict saved by torch.save, as by the published code"
    FOLDER = "a folder of another program with one of these files"


def identify_weights(path: Path) -> WeightsKind:
    """Returns what kind of place `path` is.  Reads names alone; only loading shows whether the content is sound.

    Raises:
        CheckpointError: if there is nothing.
    """
    if (path / RECORD).exists():
        return WeightsKind.CHECKPOINT
    if is_exported(path):
        return WeightsKind.EXPORTED
    if path.is_dir():
        is_run = latest_checkpoint(path) is not None or not holds_tensors(path)
        return WeightsKind.RUN if is_run else WeightsKind.FOLDER
    if not path.is_file():
        raise CheckpointError(f"load_checkpoint={path} does not exist: {WHAT_TO_NAME}")
    is_safe = path.name.removesuffix(INDEX).endswith(".safetensors")
    return WeightsKind.SAFETENSORS if is_safe else WeightsKind.TORCH


def load_weights(path: Path, averaged: bool = True) -> Weights:
    """Reads the weights at `path`, which can be each of `WeightsKind`.

    Args:
        averaged: take the averaged weights of a checkpoint that has them.

    Raises:
        CheckpointError: if there are none, or the file has anything but tensors.
    """
    return _READERS[identify_weights(path)](path, averaged)


def record_of(path: Path) -> CheckpointRecord:
    """Returns the record beside the weights at `path`; an empty one if there is none."""
    if not path.exists():
        return CheckpointRecord()
    kind = identify_weights(path)
    if kind is WeightsKind.CHECKPOINT:
        return read_record(path)
    if kind is WeightsKind.EXPORTED:
        return read_exported_record(path)
    latest = latest_checkpoint(path) if kind is WeightsKind.RUN else None
    return CheckpointRecord() if latest is None else read_record(latest)


def _load_checkpoint(path: Path, averaged: bool) -> Weights:
    record = read_record(path)
    network = read_part(path, "network", record)
    if averaged and record.has_part("ema"):
        network |= read_part(path, "ema", record)
    rows, residual = (_load_rows(path, part, record, averaged) for part in ("puzzle_table", "residual_table"))
    return Weights(str(path), network, rows, record, residual_rows=residual)


def _load_rows(path: Path, table: str, record: CheckpointRecord, averaged: bool) -> Tensor | StoredRows | None:
    """Returns the rows of a table, averaged if that is asked for and stored; None if there is no such table."""
    if not (files := row_files(record, table)):
        return None
    for file in files:
        verify_file(path, file, record)
    stored = StoredRows(path, record, table, record.ema_rate if averaged else None)
    return stored.dense() if 4 * stored.shape[0] * stored.shape[1] <= IN_MEMORY else stored


def _load_run(path: Path, averaged: bool) -> Weights:
    if (latest := latest_checkpoint(path)) is None:
        below = [folder for folder in sorted(path.iterdir()) if latest_checkpoint(folder) is not None]
        remedy = f"did you mean {below[-1]}?" if below else WHAT_TO_NAME
        raise CheckpointError(f"{path} has no checkpoint: {remedy}")
    return _load_checkpoint(latest, averaged)


def _load_exported(path: Path, averaged: bool) -> Weights:
    network, summary, record = read_exported(path)
    return Weights(str(path), network, None, record, summary)


def _load_tensors(path: Path, averaged: bool) -> Weights:
    """The weights of files that have tensors by name and say nothing else of themselves."""
    state = read_tensors(path)
    prefix = next((key.removesuffix(EMBEDDING) for key in state if key.endswith(f".{EMBEDDING}")), "")
    network = {published_name(key.removeprefix(prefix)): value for key, value in state.items()}
    if missing := [key for key in ESSENTIAL if key not in network]:
        raise CheckpointError(
            f"{path} is not a network like TRM: of what every one has, {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; it has {', '.join(list(state)[:3])}, .. "
            f"({len(state)} tensors): name weights of TRM, URM or HRM"
        )
    return Weights(str(path), network, network.pop(PUBLISHED_TABLE, None))


_READERS: dict[WeightsKind, Callable[[Path, bool], Weights]] = {
    WeightsKind.CHECKPOINT: _load_checkpoint,
    WeightsKind.RUN: _load_run,
    WeightsKind.EXPORTED: _load_exported,
    WeightsKind.SAFETENSORS: _load_tensors,
    WeightsKind.TORCH: _load_tensors,
    WeightsKind.FOLDER: _load_tensors,
}


def published_name(key: str) -> str:
    """Returns the raw name of a parameter, without what compilation, data parallelism and wrappers put before it.

    URM's code has its blocks under `layers.`; here they are under `L_level.layers.`, as those of TRM.
    """
    parts = [part for part in key.split(".") if part not in ("_orig_mod", "module")]
    name = ".".join(parts).removeprefix("model.inner.").removeprefix("inner.")
    return f"L_level.{name}" if name.startswith("layers.") else name
