"""Writes checkpoints in the background, whole or not at all, and removes old ones."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from safetensors.torch import save_file

from training.checkpoint.reader import Parts, list_checkpoints, read_record
from training.checkpoint.record import FORMAT_VERSION, RECORD, WITH_CHANGED_ROWS, CheckpointRecord, StoredFile
from training.checkpoint.row_files import TABLES
from training.checkpoint.row_snapshots import RowsSnapshot, snapshot_rows
from training.slots.tables.row_tables import RowTables
from training.state import TrainState
from utils import collectives, distributed, files
from utils.errors import CheckpointError


class CheckpointWriter:
    """Writes the checkpoints of a run in the background: training waits for a copy in memory, not for the disk.

    Every method but `wait` is collective; rank 0 writes.  Checkpoints that end an interval all stay; of the others the
    last few do.

    Args:
        directory: the run's folder.
        keep_last: how many to keep of those that do not end an interval.
    """

    def __init__(self, directory: Path, keep_last: int = 2) -> None:
        self.directory, self.keep_last = directory, keep_last
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        if distributed.is_main():
            for leftover in [*directory.glob(".step_*.partial"), *directory.glob(".step_*.old")]:
                shutil.rmtree(leftover)

    def save(
        self, state: TrainState, record: CheckpointRecord, ends_interval: bool, interval: int | None = None
    ) -> Path:
        """Copies the state and starts to write `directory/step_N`, as soon as the one before is on the disk.

        Args:
            record: what the run says of itself (`start_record`); the writer adds the step and the files.
            interval: how many intervals are complete, at the end of one.

        Raises:
            NonFiniteError: if the state stopped at a bad step; there is nothing new to save then.
            OSError: from writing the one before; all earlier ones are whole.
        """
        self.wait()
        state.guard.raise_if_bad()
        target = self.directory / f"step_{state.step}"
        staging = target.with_name(f".{target.name}.partial")
        if distributed.is_main():
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        try:
            parts, rows = snapshot_state(state), snapshot_rows(state.tables, staging, state.step)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        if parts is not None:
            written = {"step": state.step, "ends_interval": ends_interval}
            if interval is not None:
                written["interval"] = interval
            saved = record.model_copy(update=written)
            self._pending = self._thread.submit(self._write, target, staging, parts, rows, saved, state.tables)
        return target

    def _write(
        self,
        target: Path,
        staging: Path,
        parts: Parts,
        rows: list[RowsSnapshot],
        record: CheckpointRecord,
        tables: RowTables,
    ) -> None:
        _write_checkpoint(target, staging, parts, rows, record)
        tables.saved |= {each.table: each.saved_as(target) for each in rows}
        _remove_old(self.directory, self.keep_last, target)

    def wait(self) -> None:
        """Returns when the last checkpoint is on the disk; not collective.  Raises what writing it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        self.wait()
        self._thread.shutdown()


def snapshot_state(state: TrainState) -> Parts | None:
    """Returns a copy of the state but for puzzle rows, in host memory, on rank 0, None elsewhere.  Collective."""
    parts = state.state_dict()
    if "carry" in parts:
        parts["carry"] = {key: collectives.gather_rows_to_main(value) for key, value in parts["carry"].items()}
    if not distributed.is_main():
        return None
    return {
        part: {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}
        for part, tensors in parts.items()
    }


def save_checkpoint(state: TrainState, directory: Path, record: CheckpointRecord) -> Path:
    """Writes `directory/step_N` and returns its path when it is on the disk.  Collective; rank 0 writes."""
    writer = CheckpointWriter(directory)
    target = writer.save(state, record, ends_interval=True)
    writer.close()
    distributed.barrier()
    return target


def _remove_old(directory: Path, keep_last: int, written: Path) -> None:
    """Removes all but the last `keep_last` of the checkpoints that do not end an interval.

    Only those up to the one just written count: later ones were passed over as damaged, and must not push out what is
    whole.
    """
    candidates = list_checkpoints(directory)
    removable = []
    for path in candidates[candidates.index(written) :]:
        try:
            if not read_record(path).ends_interval:
                removable.append(path)
        except CheckpointError:
            continue
    for path in removable[keep_last:]:
        files.remove_folder(path, first=RECORD)


def _write_checkpoint(
    target: Path, staging: Path, parts: Parts, rows: list[RowsSnapshot], record: CheckpointRecord
) -> None:
    try:
        for part, tensors in parts.items():
            save_file(tensors, staging / f"{part}.safetensors")
        for each in rows:
            each.write(staging)
        known = _known_files(rows)
        listed = {
            path.name: known.get(path.name) or StoredFile(bytes=path.stat().st_size, sha256=files.sha256(path))
            for path in sorted(staging.iterdir())
        }
        is_whole = all(file in (f"{table}.safetensors" for table in TABLES) for each in rows for file in each.all_files)
        written = {"files": listed, "format": FORMAT_VERSION if is_whole else WITH_CHANGED_ROWS}
        (staging / RECORD).write_text(json.dumps(record.model_copy(update=written).to_json(), indent=1))
        files.install(staging, target, last=RECORD)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _known_files(rows: list[RowsSnapshot]) -> dict[str, StoredFile]:
    """Returns the sizes and checksums of files that are shared with an earlier checkpoint, from its record."""
    known: dict[str, StoredFile] = {}
    for kept in (each.kept for each in rows if each.kept is not None):
        stored = read_record(kept.folder).files
        known |= {name: stored[name] for name in kept.files}
    return known
