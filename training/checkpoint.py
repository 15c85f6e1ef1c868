"""Checkpoints: a folder per saved step, written whole or not at all, read without ever unpickling an object.

    CHECKPOINT_PATH/
        step_1000/
            checkpoint.json         step, settings, data set, size and SHA-256 of each file below
            network.safetensors     raw weights under their published names
            ema.safetensors         averaged weights, where ema=True
            optimizer.safetensors   moments
            puzzle_table.safetensors
            carry.safetensors       all slots, by lane and chunk
            lanes.safetensors       whose turn it is and where the streams are, with several canvases
            metrics.safetensors     sums since the last line of metrics.jsonl

Files of the published code (one `torch.save` of a state dict, compiled or not) are read as well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.puzzle_table import RowAverage, RowSummary
from training import sharing
from training.state import TrainState
from utils import collectives, distributed, files

FORMAT_VERSION = 1
RECORD = "checkpoint.json"
PUBLISHED_TABLE = "puzzle_emb.weights"

Parts = dict[str, dict[str, Tensor]]
"""Tensors by part of the state and name."""


@dataclass
class Weights:
    """What a run can start from: network weights, puzzle rows where there are any, and the record beside them.

    summary: of the trained rows, where they are shared without the rows themselves.
    """

    source: str
    network: dict[str, Tensor]
    puzzle_rows: Tensor | None
    record: dict[str, Any] = field(default_factory=dict)
    summary: RowSummary | None = None

    def row_summary(self) -> RowSummary | None:
        """Mean and spread of the trained rows; None where no row was trained."""
        return self.summary if self.puzzle_rows is None else RowSummary.from_rows(self.puzzle_rows)


class CheckpointWriter:
    """Writes checkpoints of one run in the background: training waits for a copy in memory, not for the disk.

    Everything is collective; rank 0 writes.  Checkpoints that end an interval all stay, of the others the last few.

    Args:
        directory: the run's folder.
        keep_last: how many of those that end no interval to keep.
    """

    def __init__(self, directory: Path, keep_last: int = 2) -> None:
        self.directory, self.keep_last = directory, keep_last
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        if distributed.is_main():
            for leftover in [*directory.glob(".step_*.partial"), *directory.glob(".step_*.old")]:
                shutil.rmtree(leftover)

    def save(self, state: TrainState, extra: dict[str, Any], ends_interval: bool) -> Path:
        """Copies the state and begins to write `directory/step_N`, after the one before it is on the disk.

        Args:
            extra: what else to record (the resolved settings, the data set's fingerprint).

        Raises:
            NonFiniteError: if the state stopped at a bad step; there is nothing new to save then.
            OSError: from writing the one before this, with all earlier ones whole.
        """
        self.wait()
        state.guard.raise_if_bad()
        parts = snapshot(state)
        target = self.directory / f"step_{state.step}"
        if parts is not None:
            record = {"format": FORMAT_VERSION, "step": state.step, "ends_interval": ends_interval, **extra}
            self._pending = self._thread.submit(self._write, target, parts, record)
        return target

    def _write(self, target: Path, parts: Parts, record: dict[str, Any]) -> None:
        _write(target, parts, record)
        _prune(self.directory, self.keep_last, target)

    def wait(self) -> None:
        """Returns when the last checkpoint is on the disk; not collective.  Raises what writing it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        self.wait()
        self._thread.shutdown()


def snapshot(state: TrainState) -> Parts | None:
    """A copy of the whole state in host memory, on rank 0; None elsewhere.  Collective."""
    parts = state.state_dict()
    if "carry" in parts:
        parts["carry"] = {key: collectives.gather_rows_to_main(value) for key, value in parts["carry"].items()}
    if not distributed.is_main():
        return None
    return {
        part: {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}
        for part, tensors in parts.items()
    }


def save(state: TrainState, directory: Path, extra: dict[str, Any]) -> Path:
    """Writes `directory/step_N` and returns when it is on the disk; collective, rank 0 writes."""
    writer = CheckpointWriter(directory)
    target = writer.save(state, extra, ends_interval=True)
    writer.close()
    distributed.barrier()
    return target


def _prune(directory: Path, keep_last: int, written: Path) -> None:
    """Removes all but the last `keep_last` of the checkpoints that end no interval, up to the one just written: what
    lies after it was passed over as damaged and must not push out what is whole."""
    candidates = found(directory)
    passing = []
    for path in candidates[candidates.index(written) :]:
        try:
            ends_interval = read_record(path).get("ends_interval", True)
        except ValueError:
            continue
        if not ends_interval:
            passing.append(path)
    for path in passing[keep_last:]:
        doomed = path.with_name(f".{path.name}.old")
        os.replace(path, doomed)  # gone under its name at once, so that none is ever half there
        shutil.rmtree(doomed)


def _write(target: Path, parts: Parts, record: dict[str, Any]) -> None:
    staging = target.with_name(f".{target.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        listed = {}
        for part, tensors in parts.items():
            path = staging / f"{part}.safetensors"
            save_file(tensors, path)
            listed[path.name] = {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
        (staging / RECORD).write_text(json.dumps({**record, "files": listed}, indent=1))
        files.install(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


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


def resolve(path: Path) -> Path:
    """A run's folder stands for its latest checkpoint; anything else for itself."""
    return path if (path / RECORD).exists() else latest(path) or path


def record_of(path: Path) -> dict[str, Any]:
    """The record beside the weights at `path`; empty where there is none."""
    path = resolve(path)
    if sharing.is_folder(path):
        return sharing.read_record(path)
    return read_record(path) if (path / RECORD).exists() else {}


def load_weights(path: Path, averaged: bool = True) -> Weights:
    """Weights to start from: one of our folders (a run's stands for its latest checkpoint), one that was exported to be
    shared, a `.safetensors` file, or a file of the published code.

    Args:
        averaged: take the averaged weights of a folder that has them.

    Raises:
        ValueError: if it is none of these, or holds anything but tensors.
    """
    path = resolve(path)
    if sharing.is_folder(path):
        network, summary, record = sharing.read(path)
        return Weights(str(path), network, None, record, summary)
    if path.is_dir():
        record = read_record(path)
        network = read_part(path, "network", record)
        if averaged and "ema.safetensors" in record["files"]:
            network |= read_part(path, "ema", record)
        has_table = "puzzle_table.safetensors" in record["files"]
        table = read_part(path, "puzzle_table", record) if has_table else {}
        rows = _averaged_rows(table, record) if averaged and "average" in table else table.get("weights")
        return Weights(str(path), network, rows, record)
    if not path.is_file():
        raise ValueError(f"load_checkpoint={path} does not exist: name a checkpoint folder or file")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # whatever a reader of bytes that are no checkpoint stumbles over
        raise ValueError(
            f"{path} is not a file of plain tensors and was not loaded ({type(error).__name__}): name a "
            "checkpoint folder, a .safetensors file or a state dict saved by torch.save"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds {type(state).__name__}, not a dictionary of tensors")
    network = {published_name(key): value for key, value in state.items()}
    return Weights(str(path), network, network.pop(PUBLISHED_TABLE, None))


def _averaged_rows(table: dict[str, Tensor], record: dict[str, Any]) -> Tensor:
    """The rows' average at the checkpoint's step."""
    average = RowAverage(table["weights"], float(record.get("config", {}).get("ema_rate", 0.999)))
    average.load_state_dict(table)
    return average.gather(torch.arange(len(table["weights"])))


def published_name(key: str) -> str:
    """The raw name of a parameter, without what compilation, data parallelism and wrappers put before it."""
    parts = [part for part in key.split(".") if part not in ("_orig_mod", "module")]
    return ".".join(parts).removeprefix("model.inner.").removeprefix("inner.")
