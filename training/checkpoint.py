"""Checkpoints: a folder per saved step, written whole or not at all, read without ever unpickling an object.

    CHECKPOINT_PATH/
        step_1000/
            checkpoint.json         step, settings, data set, size and SHA-256 of each file below
            network.safetensors     raw weights under their published names
            ema.safetensors         averaged weights, where ema=True
            optimizer.safetensors   moments
            puzzle_table.safetensors
            carry.safetensors       the slots of the global batch

Files of the published code (one `torch.save` of a state dict, compiled or not) are read as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.state import TrainState
from utils import collectives, distributed

FORMAT_VERSION = 1
RECORD = "checkpoint.json"
PUBLISHED_TABLE = "puzzle_emb.weights"


@dataclass
class Weights:
    """What a run can start from: network weights, puzzle rows where there are any, and the record beside them."""

    source: str
    network: dict[str, Tensor]
    puzzle_rows: Tensor | None
    record: dict[str, Any] = field(default_factory=dict)


def save(state: TrainState, directory: Path, extra: dict[str, Any]) -> Path:
    """Writes `directory/step_N`; collective, rank 0 writes.  The folder appears under its name only when it is whole.

    Args:
        extra: what else to record (the resolved settings, the data set's fingerprint).

    Raises:
        OSError: from the file system, with earlier checkpoints untouched.
    """
    parts = state.state_dict()
    if "carry" in parts:
        parts["carry"] = {key: collectives.gather_rows_to_main(value) for key, value in parts["carry"].items()}
    target = directory / f"step_{state.step}"
    if distributed.is_main():
        _write(target, parts, {"format": FORMAT_VERSION, "step": state.step, **extra})
    distributed.barrier()
    return target


def _write(target: Path, parts: dict[str, dict[str, Tensor]], record: dict[str, Any]) -> None:
    staging = target.with_name(f".{target.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        files = {}
        for part, tensors in parts.items():
            path = staging / f"{part}.safetensors"
            save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, path)
            _sync(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        (staging / RECORD).write_text(json.dumps({**record, "files": files}, indent=1))
        _sync(staging / RECORD)
        _sync(staging)
        if target.exists():
            shutil.rmtree(target)
        os.replace(staging, target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def latest(directory: Path) -> Path | None:
    """The checkpoint of the most steps in a run's folder, if there is one."""
    found = {
        int(match[1]): path
        for path in (directory.iterdir() if directory.is_dir() else ())
        if (match := re.fullmatch(r"step_(\d+)", path.name)) and (path / RECORD).is_file()
    }
    return found[max(found)] if found else None


def read_record(path: Path) -> dict[str, Any]:
    """The record of one of our checkpoints.

    Raises:
        ValueError: if it is not one.
    """
    try:
        record = json.loads((path / RECORD).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a checkpoint folder ({error}): name a step_N folder or a file") from None
    if record.get("format") != FORMAT_VERSION:
        raise ValueError(f"{path} has checkpoint format {record.get('format')}, this program reads {FORMAT_VERSION}")
    return record


def read_part(path: Path, part: str, record: dict[str, Any]) -> dict[str, Tensor]:
    """One file of a checkpoint, after its size and SHA-256 have been compared with the record."""
    file = path / f"{part}.safetensors"
    known = record["files"][file.name]
    if not file.is_file() or file.stat().st_size != known["bytes"] or _sha256(file) != known["sha256"]:
        raise ValueError(f"{file} is damaged (size or checksum differ from {RECORD}): use an earlier checkpoint")
    return load_file(file)


def restore(state: TrainState, path: Path) -> dict[str, Any]:
    """Sets the whole train state from `path`; returns the checkpoint's record.  Every rank takes its slots."""
    record = read_record(path)
    names = [name.removesuffix(".safetensors") for name in record["files"]]
    parts = {name: read_part(path, name, record) for name in names}
    if "carry" in parts:
        parts["carry"] = {key: collectives.local_slice(value) for key, value in parts["carry"].items()}
    state.load_state_dict(parts, record["step"])
    return record


def load_weights(path: Path, averaged: bool = True) -> Weights:
    """Weights to start from: one of our folders, a `.safetensors` file, or a file of the published code.

    Args:
        averaged: take the averaged weights of a folder that has them.

    Raises:
        ValueError: if it is none of these, or holds anything but tensors.
    """
    if path.is_dir():
        record = read_record(path)
        network = read_part(path, "network", record)
        if averaged and "ema.safetensors" in record["files"]:
            network |= read_part(path, "ema", record)
        has_table = "puzzle_table.safetensors" in record["files"]
        rows = read_part(path, "puzzle_table", record)["weights"] if has_table else None
        return Weights(str(path), network, rows, record)
    if not path.is_file():
        raise ValueError(f"load_checkpoint={path} does not exist: name a checkpoint folder or file")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is not a file of plain tensors and was not loaded: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds {type(state).__name__}, not a dictionary of tensors")
    network = {published_name(key): value for key, value in state.items()}
    return Weights(str(path), network, network.pop(PUBLISHED_TABLE, None))


def published_name(key: str) -> str:
    """The raw name of a parameter, without what compilation, data parallelism and wrappers put before it."""
    parts = [part for part in key.split(".") if part not in ("_orig_mod", "module")]
    return ".".join(parts).removeprefix("model.inner.").removeprefix("inner.")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
