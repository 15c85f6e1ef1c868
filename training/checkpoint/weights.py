"""Reads weights to start from, whatever kind of file or folder stores them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from dataset import storage
from dataset.storage import SplitMetadata
from models.arch import ArchConfig
from models.puzzle_table import RowAverage, RowSummary
from training.checkpoint import exported
from training.checkpoint.exported import NetworkConfig
from training.checkpoint.reader import RECORD, latest, read_part, read_record

ARCHS = Path(__file__).resolve().parents[2] / "config" / "arch"


def network_config(weights: Weights, arch: Sequence[str] = (), data: Path | None = None) -> NetworkConfig:
    """Architecture, tokens and canvas of weights, from their record or else as for `write_folder`.

    Raises:
        ValueError: naming what is not known.
    """
    if "network" in weights.record:
        return NetworkConfig.model_validate(weights.record["network"])
    return NetworkConfig.of(_arch(weights, arch), _metadata(weights, data))


def _arch(weights: Weights, given: Sequence[str]) -> ArchConfig:
    """The recorded architecture, or the one that is named."""
    recorded = weights.record.get("config", {}).get("arch")
    if recorded is not None:
        if given:
            raise ValueError(f"{weights.source} records its network: leave out --arch")
        return ArchConfig.model_validate(recorded)
    if not given:
        raise ValueError(f"{weights.source} does not say what network it is of: add --arch arch=trm arch.H_cycles=3 ..")
    names = [value for key, _, value in (item.partition("=") for item in given) if key == "arch"]
    path = ARCHS / f"{names[0] if names else 'trm'}.yaml"
    if not path.is_file():
        raise ValueError(f"--arch arch={path.stem} does not exist: choose one of {', '.join(_arch_names())}")
    rest = OmegaConf.from_dotlist([item for item in given if not item.startswith("arch=")])
    merged: Any = OmegaConf.to_container(OmegaConf.merge({"arch": OmegaConf.load(path)}, rest), resolve=True)
    try:
        return ArchConfig.model_validate(merged.pop("arch"))
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(f"--arch arch.{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def _arch_names() -> list[str]:
    return sorted(path.stem for path in ARCHS.glob("*.yaml"))


def _metadata(weights: Weights, data: Path | None) -> Any:
    """Tokens and canvas: those of `data`, else those that the record tells of the last stage."""
    if data is not None:
        return storage.open_split(data, "train").metadata
    told = [one["tokens"] for stage in weights.record.get("stages", []) for one in stage.get("data", [])]
    if not told:
        raise ValueError(f"{weights.source} does not say what canvas it was trained on: add --data DATA_SET")
    return SplitMetadata.model_construct(**told[-1])


PUBLISHED_TABLE = "puzzle_emb.weights"


@dataclass
class Weights:
    """What a run can start from: network weights, puzzle rows where there are any, and the record beside them.

    summary: of the trained rows, where they are shared without the rows themselves.
    """

    source: str
    network: dict[str, Tensor]
    puzzle_rows: Tensor | None
    record: dict[str, Any] = field(default_factory=dict)
    summary: RowSummary | None = None

    def row_summary(self) -> RowSummary | None:
        """Mean and spread of the trained rows; None where no row was trained."""
        return self.summary if self.puzzle_rows is None else RowSummary.from_rows(self.puzzle_rows)


def resolve(path: Path) -> Path:
    """A run's folder stands for its latest checkpoint; anything else for itself."""
    return path if (path / RECORD).exists() else latest(path) or path


def record_of(path: Path) -> dict[str, Any]:
    """The record beside the weights at `path`; empty where there is none."""
    path = resolve(path)
    if exported.is_folder(path):
        return exported.read_record(path)
    return read_record(path) if (path / RECORD).exists() else {}


def load_weights(path: Path, averaged: bool = True) -> Weights:
    """Weights to start from: one of our folders (a run's stands for its latest checkpoint), one that was exported to be
    shared, a `.safetensors` file, or a file of the published code.

    Args:
        averaged: take the averaged weights of a folder that has them.

    Raises:
        ValueError: if it is none of these, or holds anything but tensors.
    """
    path = resolve(path)
    if exported.is_folder(path):
        network, summary, record = exported.read(path)
        return Weights(str(path), network, None, record, summary)
    if path.is_dir():
        record = read_record(path)
        network = read_part(path, "network", record)
        if averaged and "ema.safetensors" in record["files"]:
            network |= read_part(path, "ema", record)
        has_table = "puzzle_table.safetensors" in record["files"]
        table = read_part(path, "puzzle_table", record) if has_table else {}
        rows = _averaged_rows(table, record) if averaged and "average" in table else table.get("weights")
        return Weights(str(path), network, rows, record)
    if not path.is_file():
        raise ValueError(f"load_checkpoint={path} does not exist: name a checkpoint folder or file")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # whatever a reader of bytes that are no checkpoint stumbles over
        raise ValueError(
            f"{path} is not a file of plain tensors and was not loaded ({type(error).__name__}): name a "
            "checkpoint folder, a .safetensors file or a state dict saved by torch.save"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds {type(state).__name__}, not a dictionary of tensors")
    network = {published_name(key): value for key, value in state.items()}
    return Weights(str(path), network, network.pop(PUBLISHED_TABLE, None))


def _averaged_rows(table: dict[str, Tensor], record: dict[str, Any]) -> Tensor:
    """The rows' average at the checkpoint's step."""
    average = RowAverage(table["weights"], float(record.get("config", {}).get("ema_rate", 0.999)))
    average.load_state_dict(table)
    return average.gather(torch.arange(len(table["weights"])))


def published_name(key: str) -> str:
    """The raw name of a parameter, without what compilation, data parallelism and wrappers put before it."""
    parts = [part for part in key.split(".") if part not in ("_orig_mod", "module")]
    return ".".join(parts).removeprefix("model.inner.").removeprefix("inner.")
