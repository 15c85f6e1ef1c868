"""Measures how long training waits for a checkpoint with a table of 1.19 million rows (2.4 GB)."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.sections.steps import SMALL, batch_of, state_of
from models.puzzles.table import PuzzleTable
from training.checkpoint import CheckpointRecord, CheckpointWriter
from training.step import train_step

ROWS, WIDTH = 1_191_722, 512
EVERY_SECONDS = 600


def measure(device: torch.device) -> dict[str, Any]:
    state = state_of(SMALL[0], device, compiled=False)
    train_step(state, batch_of(SMALL[0]), 10)
    state.table = PuzzleTable(ROWS, WIDTH, device)
    with tempfile.TemporaryDirectory() as folder:
        writer = CheckpointWriter(Path(folder))
        started = time.perf_counter()
        writer.save(state, CheckpointRecord(), ends_interval=False)
        blocked = time.perf_counter() - started
        writer.wait()
        written = time.perf_counter() - started
        writer.close()
    return {
        "training waits, s": blocked,
        "until it is on the disk, s": written,
        "share of the time at one per 10 minutes, %": 100 * blocked / EVERY_SECONDS,
    }
