"""A network to share, without the puzzle table, which fine-tuning replaces anyway:

    FOLDER/
      README.md                 the model card (training/export/model_card.py)
      config.json               architecture, tokens, canvas: what it takes to build the network and to speak to it
      model.safetensors         the network's weights, float32, under their published names
      puzzle_rows.safetensors   mean and spread of the trained puzzle rows: what rows of new puzzles start from
      provenance.json           what the weights were trained on and how, their scores, SHA-256 of both files above

`python -m training.export CHECKPOINT FOLDER --format folder` writes it, `load_checkpoint=FOLDER` reads it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.puzzles.rows import RowSummary
from training.checkpoint.record import CheckpointRecord, Stage, WeightsAre
from training.checkpoint.sources.network_config import NetworkConfig
from utils import files
from utils.errors import CheckpointError

CONFIG, PROVENANCE, MODEL_CARD = "config.json", "provenance.json", "README.md"
MODEL, ROWS = "model.safetensors", "puzzle_rows.safetensors"

Model = TypeVar("Model", bound=BaseModel)


class Provenance(BaseModel):
    """The content of `provenance.json`."""

    model_config = ConfigDict(extra="forbid")

    weights: WeightsAre = Field(
        description="averaged: by EMA over the last steps; unknown: they come from a file that does not say"
    )
    step: int | None = Field(None, description="optimizer steps of the last stage")
    stages: list[Stage] = Field(default_factory=list, description="the runs that led here, the first one first")
    scores: list[dict[str, Any]] = Field(default_factory=list, description="each with its conditions")
    task_keys: dict[str, str] = Field(default_factory=dict, description="tasks seen, whatever their names")
    git: dict[str, Any] | None = None
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 of each")


def is_exported(path: Path) -> bool:
    """Whether `path` is a folder that `write_exported` has written."""
    return (path / CONFIG).is_file() and (path / PROVENANCE).is_file()


def write_exported(
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
        card: the text of the model card.
        again: accept a folder that has exactly this content already, and leave it as it is.

    Raises:
        CheckpointError: if there is something else at its place.
    """
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not (again and is_exported(folder)):
        raise CheckpointError(f"{folder} exists: name another folder or remove it")
    given, folder = folder, folder.resolve()
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        _write_weights(staging, network, rows)
        listed = {path.name: files.sha256(path) for path in sorted(staging.iterdir())}
        _write_documents(staging, config, provenance.model_copy(update={"files": listed}), card)
        if not taken:
            files.install(staging, folder, last=PROVENANCE)
        elif other := _first_difference(staging, folder):
            raise CheckpointError(
                f"{given} exists, and its {other} is not what would be written now: name another folder, remove "
                f"this one, or upload it as it is by hf upload USER/NAME {given}"
            )
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_weights(folder: Path, network: dict[str, Tensor], rows: RowSummary | None) -> None:
    # "format" is what the hub and other readers of safetensors look for.
    save_file({key: value.contiguous() for key, value in network.items()}, folder / MODEL, {"format": "pt"})
    if rows is not None:
        tensors = {"mean": rows.mean, "spread": rows.spread, "count": torch.tensor(rows.count)}
        save_file(tensors, folder / ROWS, {"format": "pt"})
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors lets only its owner read a file


def _write_documents(folder: Path, config: NetworkConfig, provenance: Provenance, card: str) -> None:
    (folder / CONFIG).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / PROVENANCE).write_text(provenance.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / MODEL_CARD).write_text(card, encoding="utf-8")


def _first_difference(one: Path, other: Path) -> str:
    """The first file, by name, that only one of two folders has or that differs; empty if there is none."""
    names = {path.name for folder in (one, other) for path in folder.iterdir()}
    for name in sorted(names):
        here, there = one / name, other / name
        if not (here.is_file() and there.is_file() and files.sha256(here) == files.sha256(there)):
            return name
    return ""


def read_exported_record(folder: Path) -> CheckpointRecord:
    """Returns what the folder says of its weights.

    Raises:
        CheckpointError: naming the file that cannot be read.
    """
    config = _read_document(folder / CONFIG, NetworkConfig)
    provenance = _read_document(folder / PROVENANCE, Provenance)
    return CheckpointRecord(
        step=provenance.step,
        config={"arch": config.arch.model_dump(mode="json")},
        task_keys=provenance.task_keys,
        stages=provenance.stages,
        git=provenance.git,
        weights=provenance.weights,
        network=config,
        scores=provenance.scores,
    )


def read_exported(folder: Path) -> tuple[dict[str, Tensor], RowSummary | None, CheckpointRecord]:
    """Returns the weights, mean and spread of the puzzle rows if there are any, and the record.

    Raises:
        CheckpointError: naming the file that is missing or is not what was written.
    """
    record = read_exported_record(folder)
    for name, known in _read_document(folder / PROVENANCE, Provenance).files.items():
        if not (folder / name).is_file() or files.sha256(folder / name) != known:
            raise CheckpointError(
                f"{folder / name} is missing or not what was exported (its checksum): fetch the folder again"
            )
    rows = None
    if (folder / ROWS).is_file():
        stored = _read_tensors(folder / ROWS)
        if missing := {"mean", "spread", "count"} - stored.keys():
            raise CheckpointError(f"{folder / ROWS} has no {sorted(missing)[0]}: fetch the folder again")
        rows = RowSummary(stored["mean"], stored["spread"], int(stored["count"]))
    return _read_tensors(folder / MODEL), rows, record


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): fetch it again") from None


def _read_document(path: Path, model: type[Model]) -> Model:
    try:
        return model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise CheckpointError(
            f"{path} is not one of this program's ({where}: {problem['msg']}): export it again"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): fetch it again") from None
