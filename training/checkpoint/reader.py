"""Reads checkpoints.  A checkpoint is a folder per saved step; no object is ever unpickled.

    CHECKPOINT_PATH/
        step_1000/
            checkpoint.json         the record (`record.py`): step, settings, data, size and SHA-256 of each file below
            network.safetensors     raw weights under their published names
            ema.safetensors         averaged weights, with ema=True
            optimizer.safetensors   moments
            puzzle_table.safetensors    rows of puzzles, or of tasks (arch.puzzle_embedding=composed)
            puzzle_table.step_1000.0.safetensors .. those that changed after it, or all that were ever written: some
                                        are hard links to files of earlier checkpoints (`row_files.py`)
            residual_table.safetensors  rows of puzzles beside those of tasks (arch.augmentation_rank), likewise
            carry.safetensors       all slots, by bucket and micro-batch
            buckets.safetensors     the scheduler, and where the streams are, with several canvases (before: lanes)
            metrics.safetensors     sums since the last line of metrics.jsonl

`writer.py` writes it, whole or not at all.  `weights.py` reads weights from other places too.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from training.checkpoint.record import FORMAT_VERSION, RECORD, WITH_CHANGED_ROWS, CheckpointRecord
from training.checkpoint.row_files import TABLES, StoredRows, restore_rows, row_files
from training.slots.tables.row_tables import SavedRows
from training.state import TrainState
from utils import collectives, files
from utils.errors import CheckpointError

Parts = dict[str, dict[str, Tensor]]
"""Tensors by part of the state and by name."""


def list_checkpoints(directory: Path) -> list[Path]:
    """Returns the checkpoints in a run's folder; the one with the most steps is the first."""
    steps = {
        int(match[1]): path
        for path in (directory.iterdir() if directory.is_dir() else ())
        if (match := re.fullmatch(r"step_(\d+)", path.name)) and (path / RECORD).is_file()
    }
    return [steps[step] for step in sorted(steps, reverse=True)]


def latest_checkpoint(directory: Path) -> Path | None:
    """Returns the checkpoint with the most steps in a run's folder, or None if there is none."""
    return next(iter(list_checkpoints(directory)), None)


def latest_undamaged(directory: Path) -> tuple[Path | None, list[str]]:
    """Returns the checkpoint with the most steps whose files all agree with their checksums, and what is wrong with
    later ones.  The path is None if there are no checkpoints.

    Raises:
        CheckpointError: if all of them are damaged; a run never starts again from the beginning by itself.
    """
    problems: list[str] = []
    for path in list_checkpoints(directory):
        try:
            record = read_record(path)
            for name in record.files:
                verify_file(path, name, record)
            return path, problems
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(
            f"no checkpoint in {directory} is whole ({problems[0]}): restore one, "
            "or start again in another checkpoint_path"
        )
    return None, problems


def read_record(path: Path) -> CheckpointRecord:
    """Returns the record of a checkpoint folder.

    Raises:
        CheckpointError: if it is not one.
    """
    try:
        content = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a checkpoint folder ({error}): name a step_N folder or a file") from None
    if not isinstance(content, dict) or not {"step", "files"} <= content.keys():
        raise CheckpointError(f"{path / RECORD} is not the record of a checkpoint: use an earlier checkpoint")
    if content.get("format") not in (FORMAT_VERSION, WITH_CHANGED_ROWS):
        raise CheckpointError(
            f"{path} has checkpoint format {content.get('format')}, and this program reads {FORMAT_VERSION} and "
            f"{WITH_CHANGED_ROWS}: use the program that wrote it"
        )
    try:
        record = CheckpointRecord.model_validate(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise CheckpointError(
            f"{path / RECORD} is not the record of a checkpoint ({where}: {error.errors()[0]['msg']}): "
            "use an earlier checkpoint"
        ) from None
    if record.step is None:
        raise CheckpointError(f"{path / RECORD} has no step: use an earlier checkpoint")
    return record


def verify_file(path: Path, file: str, record: CheckpointRecord) -> None:
    """Compares a file of a checkpoint with its size and SHA-256 in the record.

    Raises:
        CheckpointError: if it differs, or is missing.
    """
    known = record.files.get(file)
    if known is None:
        raise CheckpointError(f"{path} has no {file}: another program wrote it, or it is incomplete; use another one")
    stored = path / file
    if not stored.is_file() or stored.stat().st_size != known.bytes or files.sha256(stored) != known.sha256:
        raise CheckpointError(f"{stored} is damaged (size or checksum differ from {RECORD}): use an earlier checkpoint")


def read_part(path: Path, part: str, record: CheckpointRecord, verified: bool = False) -> dict[str, Tensor]:
    """Returns the tensors of a file of a checkpoint, after comparing it with its checksum unless that has been done.

    Raises:
        CheckpointError: if it is damaged, or has no tensors.
    """
    file = f"{part}.safetensors"
    if not verified:
        verify_file(path, file, record)
    try:
        return load_file(path / file)
    except SafetensorError as error:
        raise CheckpointError(f"{path / file} has no tensors ({error}): use an earlier checkpoint") from None


def restore_state(state: TrainState, path: Path) -> CheckpointRecord:
    """Sets the whole train state from a checkpoint whose files have been verified; each rank takes its own slots.

    Returns:
        the checkpoint's record.

    Raises:
        CheckpointError: if the checkpoint is not of a state like this one.
    """
    record = read_record(path)
    assert record.step is not None
    if not record.has_part("network"):
        raise CheckpointError(f"{path} has no network: use another checkpoint")
    of_tables = {name: row_files(record, name) for name in TABLES}
    files_of_rows = {file for files in of_tables.values() for file in files}
    names = [name.removesuffix(".safetensors") for name in record.files if name not in files_of_rows]
    parts = {name: read_part(path, name, record, verified=True) for name in names if name != "carry"}
    try:
        if "carry" in names:
            with safe_open(path / "carry.safetensors", framework="pt") as carry:
                parts["carry"] = {key: _local_rows(carry.get_slice(key)) for key in carry.keys()}  # noqa: SIM118
        state.load_state_dict(parts, record.step)
        for name, table in state.tables.by_name().items():
            if not of_tables[name]:
                raise KeyError(name)
            stored = StoredRows(path, record, name)
            restore_rows(table, stored)
            state.tables.saved[name] = SavedRows(path, stored.files, stored.stored, table.end_tick())
    except CheckpointError:
        raise
    except ValueError as error:  # models/ knows no errors of users
        raise CheckpointError(f"{path}: {error}") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path / 'carry.safetensors'} has no tensors ({error}): use another one") from None
    except KeyError as error:
        raise CheckpointError(f"{path} does not contain {error}, which these settings need: use another one") from None
    return record


def _local_rows(rows: Any) -> Tensor:
    """The rows of this rank, of a tensor that is still on the disk."""
    first, end = collectives.local_range(rows.get_shape()[0])
    return rows[first:end]
