"""Writes checkpoints in the background, whole or not at all, and removes old ones."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from training.checkpoint.reader import FORMAT_VERSION, RECORD, Parts, found, read_record
from training.state import TrainState
from utils import collectives, distributed, files


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
