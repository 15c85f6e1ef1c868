"""The JSON documents and the file names of a data set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dataset import encoding
from dataset.canvas import Canvas, whole_canvas

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TEST_TASKS = "test_puzzles.json"
TASKS = "tasks.json"
GRIDS = "grids.npy"
PAIRS = "pairs.npy"
AUGMENTATIONS = "augmentations.npy"
IDENTIFIERS = "identifiers.json"
SPLIT_METADATA = "dataset.json"
SPLITS = ("train", "test")
MAX_IDENTIFIERS_START = 10**8
SET = "all"
GROUP_WEIGHTS = "group_weights"
VISIT_SIZES = "visit_sizes"
BLANK = "<blank>"
EXPANDED_HAS_ONE_CANVAS = (
    "canvases other than the whole one need ARC tasks in the compact format: build them with --format compact, or set "
    "canvases=null"
)
"""The error of an expanded data set that is asked for smaller canvases."""

EXPANDED_HAS_NO_GRIDS = (
    "fresh_augmentations=true needs ARC tasks in the compact format, which stores their grids: build them with "
    "--format compact, or set fresh_augmentations=false"
)
"""The error of an expanded data set that is asked for augmentations that it does not store."""


def array_path(folder: Path, set_name: str, part: str) -> Path:
    """Returns the file of an array of the expanded format; `part`: inputs, labels, puzzle_identifiers, .."""
    return folder / f"{set_name}__{part}.npy"


class SplitMetadata(BaseModel):
    """`dataset.json` of a split, as published."""

    model_config = ConfigDict(extra="ignore")

    pad_id: int = encoding.PAD
    ignore_label_id: int | None = encoding.PAD
    blank_identifier_id: int = encoding.BLANK_IDENTIFIER
    vocab_size: int = Field(encoding.VOCAB_SIZE, ge=1)
    seq_len: int = Field(ge=1)
    num_puzzle_identifiers: int = Field(ge=1)
    total_groups: int = Field(ge=0)
    mean_puzzle_examples: float
    total_puzzles: int = Field(default=0, ge=0, description="published data sets of HRM and URM do not have it")
    sets: list[Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]]  # they become file names
    row_stride: int | None = Field(default=None, ge=1, description="positions from row to row, if not the width")

    @property
    def canvas(self) -> Canvas:
        """The whole canvas, on which every example fits."""
        return whole_canvas(self.seq_len)


class TaskEntry(BaseModel):
    """A task of the compact format.  The counts of the tasks before it say where its rows of the arrays begin."""

    id: str
    subset: str
    test_split: bool
    demonstrations: int = Field(ge=0, lt=2**31)
    pairs: int = Field(ge=0, lt=2**31)
    puzzles: int = Field(ge=0, lt=2**31)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="visits per epoch")


class GeneratedEntry(BaseModel):
    """Generated pairs of a task of the compact format: a group of its own, of the same puzzles.

    Their rows of `pairs.npy` are behind those of all tasks.
    """

    task: int = Field(ge=0, description="which of the tasks, counted from 0")
    subset: str
    pairs: int = Field(ge=1, lt=2**31)
    weight: float = Field(gt=0, allow_inf_nan=False, description="visits per epoch")


class TaskList(BaseModel):
    """`tasks.json` of the compact format."""

    puzzle_identifiers_start: int = Field(ge=1, le=MAX_IDENTIFIERS_START)
    tasks: list[TaskEntry]
    generated: list[GeneratedEntry] = []

    def numbers(self) -> np.ndarray:
        """Returns demonstrations, pairs and puzzles of each task: int64 [tasks, 3]."""
        rows = [[task.demonstrations, task.pairs, task.puzzles] for task in self.tasks]
        return np.array(rows, dtype=np.int64).reshape(-1, 3)


class KnownFile(BaseModel):
    """The size and the SHA-256 of a file, as the manifest records them."""

    model_config = ConfigDict(extra="forbid")

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """`manifest.json`: what a data set was made of, so that a checkpoint can say what it was trained on."""

    model_config = ConfigDict(extra="forbid")

    format_version: int
    format: str
    sources: list[str]
    settings: dict[str, Any]
    counts: dict[str, int]
    puzzles: str = Field(description="SHA-256 of which puzzle each identifier stands for")
    task_keys: dict[str, Literal["whole", "demonstrations"]] = Field(
        default_factory=dict,
        description="which pairs of each task are trained on, by a key of its inputs (dataset.build.duplicate_tasks)",
    )
    files: dict[str, KnownFile]

    @property
    def fingerprint(self) -> str:
        """One SHA-256 of everything that training reads."""
        lines = [f"{name} {known.sha256}" for name, known in sorted(self.files.items())]
        return hashlib.sha256("\n".join([self.format, *lines]).encode()).hexdigest()
