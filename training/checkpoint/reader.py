"""Checkpoints: a folder per saved step, written whole or not at all, read without ever unpickling an object.

    CHECKPOINT_PATH/
        step_1000/
            checkpoint.json         step, settings, data set, size and SHA-256 of each file below
            network.safetensors     raw weights under their published names
            ema.safetensors         averaged weights, where ema=True
            optimizer.safetensors   moments
            puzzle_table.safetensors
            carry.safetensors       all slots, by bucket and micro-batch
            buckets.safetensors     the scheduler, and where the streams are, with several canvases (before: lanes)
            metrics.safetensors     sums since the last line of metrics.jsonl

Files of the published code (one `torch.save` of a state dict, compiled or not) are read as well.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from training.state import TrainState
from utils import collectives, files

FORMAT_VERSION = 1
RECORD = "checkpoint.json"

Parts = dict[str, dict[str, Tensor]]
"""Tensors by part of the state and name."""


def found(directory: Path) -> list[Path]:
    """The checkpoints in a run's folder, the one of most steps first."""
    steps = {
        int(match[1]): path
        for path in (directory.iterdir() if directory.is_dir() else ())
        if (match := re.fullmatch(r"step_(\d+)", path.name)) and (path / RECORD).is_file()
    }
    return [steps[step] for step in sorted(steps, reverse=True)]


def latest(directory: Path) -> Path | None:
    """The checkpoint of the most steps in a run's folder, if there is one."""
    return next(iter(found(directory)), None)


def latest_whole(directory: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint of the most steps whose every file agrees with its checksum, and why later ones do not.

    Raises:
        ValueError: if there are checkpoints and all of them are damaged: a run never begins anew by itself.
    """
    problems: list[str] = []
    for path in found(directory):
        try:
            record = read_record(path)
            for name in record["files"]:
                check(path, name, record)
            return path, problems
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(
            f"no checkpoint in {directory} is whole ({problems[0]}): restore one, "
            "or begin anew in another checkpoint_path"
        )
    return None, problems


def read_record(path: Path) -> dict[str, Any]:
    """The record of one of our checkpoints.

    Raises:
        ValueError: if it is not one.
    """
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a checkpoint folder ({error}): name a step_N folder or a file") from None
    whole = isinstance(record, dict) and isinstance(record.get("step"), int) and isinstance(record.get("files"), dict)
    if not whole or not all(isinstance(f, dict) and {"bytes", "sha256"} <= f.keys() for f in record["files"].values()):
        raise ValueError(f"{path / RECORD} is no record of a checkpoint: use an earlier checkpoint")
    if record.get("format") != FORMAT_VERSION:
        raise ValueError(f"{path} has checkpoint format {record.get('format')}, this program reads {FORMAT_VERSION}")
    return record


def check(path: Path, file: str, record: dict[str, Any]) -> None:
    """Raises ValueError if a file of a checkpoint differs from its size or SHA-256 in the record."""
    if file not in record["files"]:
        raise ValueError(f"{path} has no {file}: it is of another program, or was taken apart; use another checkpoint")
    known = record["files"][file]
    whole = path / file
    if not whole.is_file() or whole.stat().st_size != known["bytes"] or files.sha256(whole) != known["sha256"]:
        raise ValueError(f"{whole} is damaged (size or checksum differ from {RECORD}): use an earlier checkpoint")


def read_part(path: Path, part: str, record: dict[str, Any], checked: bool = False) -> dict[str, Tensor]:
    """One file of a checkpoint, compared with its checksum unless that has been done."""
    file = f"{part}.safetensors"
    if not checked:
        check(path, file, record)
    return load_file(path / file)


def restore(state: TrainState, path: Path) -> dict[str, Any]:
    """Sets the whole train state from `path`, a checkpoint that was found whole; returns its record.  Every rank takes
    its slots."""
    record = read_record(path)
    names = [name.removesuffix(".safetensors") for name in record["files"]]
    if missing := {"network"} - set(names):
        raise ValueError(f"{path} has no {missing.pop()}: use another checkpoint")
    parts = {name: read_part(path, name, record, checked=True) for name in names if name != "carry"}
    if "carry" in names:
        with safe_open(path / "carry.safetensors", framework="pt") as carry:
            parts["carry"] = {key: _local_rows(carry.get_slice(key)) for key in carry.keys()}  # noqa: SIM118
    state.load_state_dict(parts, record["step"])
    return record


def _local_rows(rows: Any) -> Tensor:
    """This rank's share of a tensor that is still on the disk."""
    first, end = collectives.local_range(rows.get_shape()[0])
    return rows[first:end]
