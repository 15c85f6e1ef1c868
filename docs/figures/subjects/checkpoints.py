"""Draws the life of a checkpoint: from the train state to a folder that is whole, and what is done with it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dataset.data_shape import DataShape
from dataset.sampling.joined import Batch
from docs.figures.drawing.style import COLORS, MARGIN, OUTLINE, QUIET, WIDTH, draw_heading, new_drawing
from docs.figures.drawing.svg import GREY, INK, Drawing
from models.arch import ArchConfig
from training.checkpoint import RECORD, latest_checkpoint, read_record, save_checkpoint, start_record
from training.config import PretrainConfig
from training.state import TrainState
from training.step import train_step

MEANINGS = {
    "network": "the weights",
    "ema": "the average of the weights",
    "optimizer": "its momentum",
    "metrics": "sums of the log's next line",
    "carry": "what each slot works on",
    "puzzle_table": "a row for each puzzle",
    "task_table": "a row for each task",
}
"""Of the parts of a checkpoint."""

OF_RECORD = "step, settings, checksums"

PARTIAL, WHOLE = ".step_N.partial/", "step_N/"


class Saved(NamedTuple):
    """What the writer has left: the files beside the record, the parts they store, how many checkpoints it keeps."""

    files: list[str]
    keep_last: int


def save_tiny_state() -> Saved:
    """Trains a tiny network for a step, writes a checkpoint of it, and returns what is there."""
    arch = ArchConfig(hidden_size=16, num_heads=2, L_layers=1, puzzle_emb_ndim=16, puzzle_emb_len=1)
    config = PretrainConfig(arch=arch, data_paths=["none"], global_batch_size=4, epochs=1, compile=False, ema=True)
    state = TrainState(config, DataShape(12, 16, 7, 0), torch.device("cpu"))
    batch = Batch(np.ones((4, 16), np.uint8), np.ones((4, 16), np.uint8), np.ones(4, np.int32))
    train_step(state, batch, total_steps=1)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(state, Path(folder), start_record(config, "tiny", [], {"data": [], "puzzles": None}, {}))
        written = latest_checkpoint(Path(folder))
        assert written is not None
        return Saved(list(read_record(written).files), config.keep_last)


def draw_checkpoint() -> str:
    """Returns the drawing as SVG."""
    drawing = new_drawing()
    saved = save_tiny_state()
    draw_heading(drawing, 40, "The life of a checkpoint", "a run that is killed at any moment finds its last whole one")
    bottom = _draw_stages(drawing, 62)
    height = 46.0 + 26 * max(len(saved.files) + 1, 6)
    half = (WIDTH - 2 * MARGIN) / 2
    _draw_files(drawing, saved.files, bottom + 34, half + 28, height)
    _draw_uses(drawing, saved.keep_last, bottom + 34, MARGIN + half + 60, height)
    return drawing.to_svg(bottom + 34 + height + 24, "How a checkpoint is written, and what it is used for")


def _draw_stages(drawing: Drawing, y: float) -> float:
    """Draws how it comes to be; returns where that ends."""
    stages = (
        (COLORS["training"], "train state", "on the device", ("A step ends, or the", "run is told to stop.")),
        (COLORS["training"], "a copy", "in host memory", ("Training waits for", "this, then goes on.")),
        (COLORS["models"], PARTIAL, "on the disk, by a thread", ("Files first, the", "record after them.")),
        (COLORS["dataset"], WHOLE, "renamed at the end", ("It is whole, or it", "is not there.")),
    )
    gap, height = 26.0, 112.0
    width = (WIDTH - 2 * MARGIN - gap * (len(stages) - 1)) / len(stages)
    for i, ((color, tint), name, where, lines) in enumerate(stages):
        x = MARGIN + i * (width + gap)
        drawing.box(x, y, width, height, tint, color)
        drawing.text(x + 12, y + 27, name, 16, color, bold=True)
        drawing.text(x + 12, y + 47, where, 13, GREY)
        for n, line in enumerate(lines):
            drawing.text(x + 12, y + 76 + 19 * n, line, 14, INK)
        if i:
            drawing.arrow((x - gap + 2, y + height / 2), (x - 3, y + height / 2))
    drawing.arrow((WIDTH - MARGIN - width / 2, y + height + 1), (WIDTH - MARGIN - width / 2, y + height + 32))
    return y + height


def _draw_files(drawing: Drawing, files: list[str], y: float, width: float, height: float) -> None:
    drawing.box(MARGIN, y, width, height, QUIET, OUTLINE)
    drawing.text(MARGIN + 14, y + 27, f"What is in {WHOLE}", 16, INK, bold=True)
    lines = [(file, MEANINGS[file.split(".")[0]]) for file in files] + [(RECORD, OF_RECORD)]
    for i, (file, meaning) in enumerate(lines):
        baseline = y + 56 + 26 * i
        color = COLORS["dataset"][0] if file == RECORD else INK
        drawing.text(MARGIN + 14, baseline, file, 14, color, bold=file == RECORD)
        drawing.text(MARGIN + 206, baseline, meaning, 14, GREY)


def _draw_uses(drawing: Drawing, keep_last: int, y: float, x: float, height: float) -> None:
    color, tint = COLORS["dataset"]
    uses = (
        ("Resume", "the same run goes on, exactly"),
        ("Start", "another run takes its weights"),
        ("Evaluate", "predict, vote, score"),
        ("Share", "the network alone, with a card"),
        ("Remove", f"all but the last {keep_last}; those that"),
        ("", "end an interval stay"),
    )
    drawing.box(x, y, WIDTH - MARGIN - x, height, tint, color)
    drawing.text(x + 14, y + 27, "What it is for", 16, INK, bold=True)
    for i, (title, words) in enumerate(uses):
        baseline = y + 56 + 26 * i
        drawing.text(x + 14, baseline, title, 14, color, bold=True)
        drawing.text(x + 96, baseline, words, 14, INK)
