"""A network to share, without the puzzle table that fine-tuning throws away:

    FOLDER/
      README.md                 the model card (training/export/model_card.py)
      config.json               architecture, tokens, canvas: what it takes to build the network and to speak to it
      model.safetensors         the network's weights, float32, under their published names
      puzzle_rows.safetensors   mean and spread of the trained puzzle rows: what rows of new puzzles start from
      provenance.json           what the weights were trained on and how, their scores, SHA-256 of both files above

`python -m training.export CHECKPOINT FOLDER --format folder` writes it, `load_checkpoint=FOLDER` takes it.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor

from dataset import encoding
from dataset.canvas import whole_canvas
from models.arch import ArchConfig
from models.puzzle_table import RowSummary
from utils import files

FORMAT_VERSION = 1
CONFIG, PROVENANCE, CARD = "config.json", "provenance.json", "README.md"
MODEL, ROWS = "model.safetensors", "puzzle_rows.safetensors"

Model = TypeVar("Model", bound=BaseModel)


class Tokens(BaseModel):
    """The ids that inputs and answers are made of."""

    model_config = ConfigDict(extra="forbid")

    vocab_size: int = Field(ge=1)
    pad_id: int = Field(description="where the canvas is empty")
    ignore_label_id: int | None = Field(description="a label that nothing is learnt from")
    end_of_grid_id: int | None = Field(None, description="ARC: the row below and the column right of a grid")
    colour_0_id: int | None = Field(None, description="ARC: colour c is colour_0_id + c")


class Canvas(BaseModel):
    """What the network looks at."""

    model_config = ConfigDict(extra="forbid")

    seq_len: int = Field(ge=1, description="cells, row by row")
    side: int | None = Field(description="of a square canvas")
    row_stride: int = Field(ge=1, description="cell (row, column) has the position row_stride * row + column")
    prefix_len: int = Field(ge=0, description="places before the first cell, which hold the puzzle's row")
    positions: str = Field(description="how places are told apart (arch.pos_encodings)")


class NetworkConfig(BaseModel):
    """`config.json`."""

    model_config = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    model_type: Literal["tiny-recursive-model"] = "tiny-recursive-model"
    arch: ArchConfig
    tokens: Tokens
    canvas: Canvas

    @model_validator(mode="after")
    def _known(self) -> NetworkConfig:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(f"format version {self.format_version} is not {FORMAT_VERSION}")
        return self

    @classmethod
    def of(cls, arch: ArchConfig, metadata: Any) -> NetworkConfig:
        """Of a network and the metadata of a split that it was trained on."""
        is_arc = metadata.vocab_size == encoding.VOCAB_SIZE
        side = math.isqrt(metadata.seq_len)
        return cls(
            arch=arch,
            tokens=Tokens(
                vocab_size=metadata.vocab_size,
                pad_id=metadata.pad_id,
                ignore_label_id=metadata.ignore_label_id,
                end_of_grid_id=encoding.EOS if is_arc else None,
                colour_0_id=encoding.COLOUR_0 if is_arc else None,
            ),
            canvas=Canvas(
                seq_len=metadata.seq_len,
                side=side if side * side == metadata.seq_len else None,
                row_stride=metadata.row_stride or whole_canvas(metadata.seq_len).width,
                prefix_len=arch.prefix_len,
                positions=arch.pos_encodings,
            ),
        )


class Provenance(BaseModel):
    """`provenance.json`."""

    model_config = ConfigDict(extra="forbid")

    weights: Literal["averaged", "raw", "unknown"] = Field(
        description="averaged: by EMA over the last steps; unknown: of a file that does not say"
    )
    step: int | None = Field(None, description="of the last stage")
    stages: list[dict[str, Any]] = Field(default_factory=list, description="runs, the first one first: data, recipe")
    scores: list[dict[str, Any]] = Field(default_factory=list, description="each with its conditions")
    task_keys: dict[str, str] = Field(default_factory=dict, description="tasks seen, whatever their names")
    git: dict[str, Any] | None = None
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 of each")


def is_folder(path: Path) -> bool:
    """Whether this is a folder that `write` has made."""
    return (path / CONFIG).is_file() and (path / PROVENANCE).is_file()


def write(
    folder: Path,
    network: dict[str, Tensor],
    rows: RowSummary | None,
    config: NetworkConfig,
    provenance: Provenance,
    card: str,
    again: bool = False,
) -> None:
    """Writes the folder, whole or not at all.

    Args:
        again: a folder that holds just this already is left as it is.

    Raises:
        ValueError: if there is something else at its place.
    """
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not (again and is_folder(folder)):
        raise ValueError(f"{folder} exists: name another folder or remove it")
    given, folder = folder, folder.resolve()
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        # "format" is what the hub and other readers of safetensors look for.
        save_file({key: value.contiguous() for key, value in network.items()}, staging / MODEL, {"format": "pt"})
        if rows is not None:
            tensors = {"mean": rows.mean, "spread": rows.spread, "count": torch.tensor(rows.count)}
            save_file(tensors, staging / ROWS, {"format": "pt"})
        listed = {path.name: files.sha256(path) for path in sorted(staging.iterdir())}
        for path in staging.iterdir():
            path.chmod(0o644)  # safetensors lets nobody else read
        (staging / CONFIG).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
        told = provenance.model_copy(update={"files": listed})
        (staging / PROVENANCE).write_text(told.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (staging / CARD).write_text(card, encoding="utf-8")
        if not taken:
            files.install(staging, folder)
        elif differing := _differing(staging, folder):
            raise ValueError(
                f"{given} exists, and its {differing} is not what would be written now: name another folder, remove "
                f"this one, or upload it as it is by hf upload USER/NAME {given}"
            )
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _differing(one: Path, other: Path) -> str:
    """The first file, by name, that only one of two folders has or that differs; empty if there is none."""
    names = {path.name for folder in (one, other) for path in folder.iterdir()}
    for name in sorted(names):
        here, there = one / name, other / name
        if not (here.is_file() and there.is_file() and files.sha256(here) == files.sha256(there)):
            return name
    return ""


def read_config(folder: Path) -> NetworkConfig:
    """Raises ValueError if the folder does not describe a network."""
    return _parsed(folder / CONFIG, NetworkConfig)


def read_record(folder: Path) -> dict[str, Any]:
    """What the folder says of its weights, in the words of a checkpoint's record.

    Raises:
        ValueError: if it says nothing that can be read.
    """
    config, provenance = read_config(folder), _parsed(folder / PROVENANCE, Provenance)
    told = provenance.model_dump(mode="json", include={"weights", "step", "stages", "scores", "task_keys", "git"})
    described = config.model_dump(mode="json")
    return {"config": {"arch": described["arch"]}, "network": described, **told}


def read(folder: Path) -> tuple[dict[str, Tensor], RowSummary | None, dict[str, Any]]:
    """Weights, the rows' mean and spread where there are rows, and `read_record`.

    Raises:
        ValueError: naming the file that is missing or not what was written.
    """
    record = read_record(folder)
    for name, known in _parsed(folder / PROVENANCE, Provenance).files.items():
        if not (folder / name).is_file() or files.sha256(folder / name) != known:
            raise ValueError(f"{folder / name} is missing or not what was exported (its checksum): fetch it again")
    rows = None
    if (folder / ROWS).is_file():
        told = load_file(folder / ROWS)
        rows = RowSummary(told["mean"], told["spread"], int(told["count"]))
    return load_file(folder / MODEL), rows, record


def _parsed(path: Path, model: type[Model]) -> Model:
    try:
        return model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ValueError(f"{path} is not one of this program's ({where}: {problem['msg']}): export it again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}): fetch it again") from None
