"""The JSON documents and the file names of a data set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

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
BLANK = "<blank>"
EXPANDED_IS_WHOLE = (
    "canvases other than the whole one need ARC tasks in the compact format: build them with --format compact, or set "
    "canvases=null"
)


def array_path(folder: Path, set_name: str, part: str) -> Path:
    """Where the expanded format keeps an array of a split's set; part: inputs, labels, puzzle_identifiers, .."""
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
    total_puzzles: int = Field(ge=0)
    sets: list[Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]]  # they become file names
    row_stride: int | None = Field(default=None, ge=1, description="of positions, where it is not the canvas's width")

    @property
    def canvas(self) -> Canvas:
        """The whole canvas."""
        return whole_canvas(self.seq_len)


class TaskEntry(BaseModel):
    """A task of the compact format: its place in the arrays follows from the counts of those before it."""

    id: str
    subset: str
    test_split: bool
    demonstrations: int = Field(ge=0, lt=2**31)
    pairs: int = Field(ge=0, lt=2**31)
    puzzles: int = Field(ge=0, lt=2**31)
    weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="visits per epoch")


class TaskList(BaseModel):
    """`tasks.json` of the compact format."""

    puzzle_identifiers_start: int = Field(ge=1, le=MAX_IDENTIFIERS_START)
    tasks: list[TaskEntry]


class KnownFile(BaseModel):
    """A file as the manifest has it."""

    model_config = ConfigDict(extra="forbid")

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a data set was made of, so that a checkpoint can say what it was trained on."""

    model_config = ConfigDict(extra="forbid")

    format_version: int
    format: str
    sources: list[str]
    settings: dict[str, Any]
    counts: dict[str, int]
    puzzles: str = Field(description="SHA-256 of which puzzle each identifier stands for")
    task_keys: dict[str, Literal["whole", "demonstrations"]] = Field(
        default_factory=dict,
        description="which tasks are trained on, whatever their names (dataset.build.duplicate_tasks)",
    )
    files: dict[str, KnownFile]

    @property
    def fingerprint(self) -> str:
        """One hash of everything that training reads."""
        lines = [f"{name} {known.sha256}" for name, known in sorted(self.files.items())]
        return hashlib.sha256("\n".join([self.format, *lines]).encode()).hexdigest()
