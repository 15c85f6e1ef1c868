"""Measures where puzzle rows lie: a step over a million rows 512 wide in memory and on a disk, in turns, and what a
checkpoint costs after a thousand steps over a hundred million rows (205 GB) on a disk."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sections.steps import SMALL, Size, arch_of, batch_of
from benchmarks.timing import in_turns, seconds
from dataset.data_shape import DataShape
from models.puzzles.rows import Rows
from models.puzzles.table import PuzzleTable
from training.checkpoint import CheckpointRecord, CheckpointWriter, restore_state
from training.config import TrainConfig
from training.prepare.prepare import prepare
from training.slots.tables.file_rows import FileRows
from training.state import TrainState
from training.step import train_step

ROWS, MANY_ROWS, WIDTH = 1_000_000, 100_000_000, 512
KINDS = ("device", "host", "disk")
STEPS, BATCH = 1000, 64
BATCHES = 50
LARGE_BATCH = 768


def state_of(size: Size, rows: int, kind: str, folder: Path, device: torch.device, compiled: bool) -> TrainState:
    config = TrainConfig(
        arch=arch_of(size).model_copy(update={"puzzle_emb_ndim": WIDTH}),
        global_batch_size=size.B,
        ema=True,
        compile=compiled,
        epochs=1,
        puzzle_table=kind,
        puzzle_table_folder=str(folder),
    )
    return prepare(TrainState(config, DataShape(12, size.cells, rows, 0), device), compiled)


def measure(device: torch.device) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return _steps(device, Path(folder)) | _batches(Path(folder)) | _checkpoint(Path(folder))


def _steps(device: torch.device, folder: Path) -> dict[str, Any]:
    """A compiled step of the demonstration's size; each has other puzzles than the ones before."""
    size = SMALL[0]._replace(prefix=WIDTH // SMALL[0].D)
    identifiers = np.random.default_rng(0).integers(1, ROWS, (BATCHES, size.B)).astype(np.int32)
    batches = [replace(batch_of(size, seed), puzzle_identifiers=identifiers[seed]) for seed in range(BATCHES)]

    def steps_of(kind: str) -> Callable[[], None]:
        state, order = state_of(size, ROWS, kind, folder, device, compiled=True), itertools.cycle(batches)
        return lambda: train_step(state, next(order), total_steps=10**6)

    times = in_turns({kind: steps_of(kind) for kind in KINDS}, device, budget=15)
    # Round by round, so that what slows the machine for a while slows all of them.
    against = {kind: [one / other for one, other in zip(times[kind], times["device"], strict=True)] for kind in KINDS}
    found: dict[str, Any] = {f"step with rows on the {kind}, s": statistics.median(times[kind]) for kind in KINDS}
    return found | {f"{kind} against device, %": 100 * (statistics.median(against[kind]) - 1) for kind in KINDS[1:]}


def _batches(folder: Path) -> dict[str, Any]:
    """The rows of a large batch, read and updated on a CPU: what a GPU waits for where it does not have the rows."""
    cpu, generator = torch.device("cpu"), torch.Generator().manual_seed(0)
    found: dict[str, Any] = {}
    for kind in KINDS[1:]:
        table = state_of(SMALL[0]._replace(prefix=4), ROWS, kind, folder, cpu, compiled=False).table
        assert table is not None
        gradients = torch.randn(LARGE_BATCH, WIDTH, generator=generator)

        def rows_of_a_step(table: PuzzleTable = table, gradients: torch.Tensor = gradients) -> None:
            identifiers = torch.randint(1, ROWS, (LARGE_BATCH,), generator=generator)
            table.gather(identifiers)
            table.apply_gradients(identifiers, gradients, 1e-2, 0.1)

        found[f"{LARGE_BATCH} rows on the {kind}: gather and update, ms"] = 1e3 * seconds(rows_of_a_step, cpu)
    return found


def _checkpoint(folder: Path) -> dict[str, Any]:
    """Sign descent on the rows of random puzzles stands for the steps: the network makes no difference to rows."""
    state = state_of(SMALL[0]._replace(prefix=4), MANY_ROWS, "disk", folder, torch.device("cpu"), compiled=False)
    table, generator = state.table, torch.Generator().manual_seed(0)
    assert table is not None
    writer = CheckpointWriter(folder / "run")
    gradients = torch.randn(BATCH, WIDTH, generator=generator)
    found: dict[str, Any] = {}
    for name in ("first", "second"):
        started = time.process_time()
        for _ in range(STEPS):
            table.apply_gradients(torch.randint(1, MANY_ROWS, (BATCH,), generator=generator), gradients, 1e-2, 0.1)
            state.step += 1
        updates = time.process_time() - started
        started, busy = time.perf_counter(), time.process_time()
        path = writer.save(state, CheckpointRecord(), ends_interval=False)
        waited = time.perf_counter() - started
        writer.wait()
        found |= {
            f"{name} checkpoint: update of rows, ms of CPU time a step": 1e3 * updates / STEPS,
            f"{name} checkpoint: training waits, s": waited,
            f"{name} checkpoint: until it is on the disk, s": time.perf_counter() - started,
            f"{name} checkpoint: CPU time of it, s": time.process_time() - busy,
            f"{name} checkpoint: new bytes, MB": _new_bytes(path) / 1e6,
        }
    found["rows on the disk, MB"] = _room(table.rows) / 1e6
    started = time.perf_counter()
    restore_state(state, path)
    writer.close()
    return found | {"the second is read again, s": time.perf_counter() - started}


def _new_bytes(path: Path) -> int:
    """The bytes of a checkpoint that it does not share with the one before."""
    return sum(file.stat().st_size for file in path.iterdir() if file.stat().st_nlink == 1)


def _room(rows: Rows) -> int:
    assert isinstance(rows, FileRows)
    return rows.room()
