"""Measures one kind of puzzle table with so many puzzles, in this process, on one thread:

    python -m benchmarks.sections.puzzles.tables ARM PUZZLES FOLDER

A training step is that of a small network.  Rows are 512 wide, those of the composed embedding as wide as the network.
Before each of two checkpoints a thousand updates of 64 random rows stand for steps: to rows the network makes no
difference.  Memory is the largest anonymous memory of the process, which leaves out the page cache and so the file of a
table on a disk.  A table in memory is filled with numbers, since pages of zeros would take no room.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sections.puzzles.data_sets import MemoryWatch, process_status
from benchmarks.sections.steps import SMALL, arch_of, batch_of
from dataset.data_shape import DataShape
from dataset.sampling.fresh_augmentations import draw_augmentations
from dataset.sampling.joined import Batch
from training.checkpoint import CheckpointRecord, CheckpointWriter
from training.config import TrainConfig
from training.launch.table_plan import PAGE
from training.launch.words import size_in_words
from training.slots.tables.file_rows import FileRows
from training.state import TrainState
from training.step import train_step

SIZES = (1_000, 100_000, 2_000_000, 10_000_000, 100_000_000)
"""Two million puzzles beside the others, for the tables in memory: a table of ten million needs 20 GB."""

WIDTH, RANK, PUZZLES_OF_A_TASK = 512, 32, 1000
COMPOSED = {"puzzle_embedding": "composed", "puzzle_emb_len": 0}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "device": ("device", {"puzzle_emb_ndim": WIDTH}),
    "host": ("host", {"puzzle_emb_ndim": WIDTH}),
    "disk": ("disk", {"puzzle_emb_ndim": WIDTH}),
    "composed": ("device", COMPOSED),
    "composed, residual": ("device", COMPOSED | {"augmentation_rank": RANK}),
    "composed, residual, disk": ("disk", COMPOSED | {"augmentation_rank": RANK}),
}
"""`puzzle_table` and settings of the network of each, by its name."""

STEPS, UPDATES, ROWS = 20, 1000, 64
CPU = torch.device("cpu")


def shapes_of(arm: str, puzzles: int) -> list[tuple[int, int]]:
    """Returns the number of rows and the width of each table, that of the blank puzzle or task included."""
    settings = ARMS[arm][1]
    if "puzzle_embedding" not in settings:
        return [(1 + puzzles, WIDTH)]
    rank = settings.get("augmentation_rank", 0)
    return [(1 + -(-puzzles // PUZZLES_OF_A_TASK), SMALL[0].D), *([(1 + puzzles, rank)] if rank else [])]


def state_of(arm: str, puzzles: int, folder: Path) -> TrainState:
    """Returns a train state with so many puzzles."""
    kind, settings = ARMS[arm]
    size = SMALL[0]
    config = TrainConfig(
        arch=type(arch_of(size)).model_validate(
            arch_of(size).model_dump() | {"puzzle_emb_len": WIDTH // size.D} | settings
        ),
        global_batch_size=size.B,
        ema=True,
        compile=False,
        epochs=1,
        puzzle_table=kind,
        puzzle_table_folder=str(folder),
    )
    tasks = 1 + -(-puzzles // PUZZLES_OF_A_TASK)
    return TrainState(config, DataShape(12, size.cells, puzzles + 1, 0, num_task_rows=tasks), CPU, folder)


def missing_room(arm: str, puzzles: int, folder: Path) -> dict[str, float] | None:
    """Returns what a table needs and what there is, in bytes, if it does not fit; else None.

    A table in the device's memory may be copied whole for a checkpoint.  One on a disk grows by a page for each row
    that is visited here.
    """
    kind, shapes = ARMS[arm][0], shapes_of(arm, puzzles)
    rows = float(sum(4 * number * width for number, width in shapes))
    if kind == "disk":
        visits = 2 * UPDATES * ROWS
        pages = sum(min(4 * number * width, PAGE * visits) for number, width in shapes)
        needed, available = 3.0 * pages, float(shutil.disk_usage(folder).free)
    else:
        needed = 2 * rows if kind == "device" else rows
        available = available_memory()
    return {"needed": needed, "rows": rows, "available": available} if needed > 0.9 * available else None


def available_memory() -> float:
    """Returns the bytes of memory that programs can still get."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return 1024.0 * float(lines["MemAvailable"].split()[0])


def measure(arm: str, puzzles: int, folder: Path) -> dict[str, float]:
    """Returns seconds and bytes of the steps and of two checkpoints."""
    torch.set_num_threads(1)
    found = {"memory_before": process_status(os.getpid(), "RssAnon")}
    watch = MemoryWatch(os.getpid())
    state = state_of(arm, puzzles, folder)
    if ARMS[arm][0] != "disk":
        for table in state.tables:
            table.weights[1:].normal_()
    found["rows"] = float(sum(4 * number * width for number, width in shapes_of(arm, puzzles)))
    found |= _steps(state, puzzles)
    with tempfile.TemporaryDirectory(dir=folder) as run:
        found |= _checkpoints(state, Path(run))
    found["disk"] = float(sum(t.rows.room() for t in state.tables if isinstance(t.rows, FileRows)))
    found["memory"] = watch.stop()
    return found


def _batch(seed: int, puzzles: int, is_composed: bool) -> Batch:
    rng = np.random.default_rng(seed)
    identifiers = rng.integers(1, puzzles + 1, SMALL[0].B).astype(np.int32)
    batch = replace(batch_of(SMALL[0], seed), puzzle_identifiers=identifiers)
    if not is_composed:
        return batch
    augmentations = draw_augmentations(rng.integers(0, 2**63, SMALL[0].B).astype(np.uint64))
    tasks = (1 + (identifiers - 1) // PUZZLES_OF_A_TASK).astype(np.int32)
    return replace(batch, tasks=tasks, augmentations=augmentations)


def _steps(state: TrainState, puzzles: int) -> dict[str, float]:
    """Times eager training steps on random puzzles."""
    cpu, clock = [], []
    for step in range(3 + STEPS):
        batch = _batch(step, puzzles, state.config.arch.is_composed)
        started, busy = time.perf_counter(), time.process_time()
        train_step(state, batch, total_steps=10**6)
        clock.append(time.perf_counter() - started)
        cpu.append(time.process_time() - busy)
    return {
        "step_cpu_seconds": statistics.median(cpu[3:]),
        "step_least_cpu_seconds": min(cpu[3:]),
        "step_seconds": statistics.median(clock[3:]),
    }


def _checkpoints(state: TrainState, run: Path) -> dict[str, float]:
    """Times two checkpoints, each after a thousand updates of rows; the second is what a run pays again and again."""
    writer, generator = CheckpointWriter(run), torch.Generator().manual_seed(0)
    found: dict[str, float] = {}
    for number in (1, 2):
        started = time.process_time()
        for _ in range(UPDATES):
            for table in state.tables:
                gradients = torch.randn(ROWS, table.width, generator=generator)
                numbers = torch.randint(1, table.num, (ROWS,), generator=generator)
                table.apply_gradients(numbers, gradients, 1e-2, 0.1)
            state.step += 1
        found["update_cpu_seconds"] = (time.process_time() - started) / UPDATES
        started, busy = time.perf_counter(), time.process_time()
        path = writer.save(state, CheckpointRecord(), ends_interval=False)
        found[f"checkpoint_{number}_waits_seconds"] = time.perf_counter() - started
        writer.wait()
        found[f"checkpoint_{number}_seconds"] = time.perf_counter() - started
        found[f"checkpoint_{number}_cpu_seconds"] = time.process_time() - busy
        new = [file.stat().st_size for file in path.iterdir() if file.stat().st_nlink == 1]
        found[f"checkpoint_{number}_bytes"] = float(sum(new))
    writer.close()
    return found


def in_words(found: Mapping[str, float]) -> str:
    """Returns a measurement in a line."""
    if "needed" in found:
        return f"does not fit: {size_in_words(found['needed'])} of {size_in_words(found['available'])}"
    return (
        f"step {1e3 * found['step_cpu_seconds']:.0f} ms of CPU time, checkpoint {found['checkpoint_2_seconds']:.1f} s "
        f"with {size_in_words(found['checkpoint_2_bytes'])}, memory {size_in_words(found['memory'])}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sections.puzzles.tables", description=__doc__)
    parser.add_argument("arm", choices=list(ARMS), help="which kind of table")
    parser.add_argument("puzzles", type=int, help="how many puzzles")
    parser.add_argument("folder", type=Path, help="where files of tables and checkpoints are made for a while")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        print(json.dumps(measure(given.arm, given.puzzles, Path(folder))))


if __name__ == "__main__":
    main()
