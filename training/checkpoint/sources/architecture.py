"""Finds out what network weights belong to: from their record, or from what the user says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from dataset import storage
from dataset.storage import SplitMetadata
from models.arch import ArchConfig
from training.checkpoint.sources.network_config import NetworkConfig
from training.checkpoint.sources.weights import Weights
from utils.errors import CheckpointError, SettingError

ARCHS = Path(__file__).resolve().parents[3] / "config" / "arch"


def network_config(weights: Weights, arch: Sequence[str] = (), data: Path | None = None) -> NetworkConfig:
    """Returns architecture, tokens and canvas of weights: those that their record names, else those of the arguments.

    Args:
        arch: `arch=NAME` and `arch.KEY=VALUE`, for weights whose record does not name their network.
        data: a data set like the one they were trained on, for weights whose record does not name their canvas.

    Raises:
        CheckpointError: naming what is not known.
        SettingError: if `arch` cannot be used.
    """
    if weights.record.network is not None:
        return weights.record.network
    architecture, metadata = _architecture(weights, arch), _metadata(weights, data)
    try:
        return NetworkConfig.from_metadata(architecture, metadata)
    except (ValidationError, AttributeError, TypeError):  # the record's tokens are any dictionary
        raise CheckpointError(
            f"{weights.source} has an incomplete record of its tokens and canvas: add --data DATA_SET"
        ) from None


def _architecture(weights: Weights, given: Sequence[str]) -> ArchConfig:
    if recorded := weights.record.arch:
        if given:
            raise SettingError(f"{weights.source} records its network: leave out --arch")
        try:
            return ArchConfig.model_validate(recorded)
        except ValidationError as error:
            raise CheckpointError(
                f"{weights.source} records a network that this program does not know ({_first_problem(error)}): "
                "use the program that wrote it"
            ) from None
    if not given:
        raise CheckpointError(
            f"{weights.source} does not say what network it is of: add --arch arch=trm arch.H_cycles=3 .."
        )
    return _parse_architecture(given)


def _parse_architecture(given: Sequence[str]) -> ArchConfig:
    """The architecture that `arch=NAME` and `arch.KEY=VALUE` name, as on the command line of a training script."""
    names = [value for key, _, value in (item.partition("=") for item in given) if key == "arch"]
    path = ARCHS / f"{names[0] if names else 'trm'}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in ARCHS.glob("*.yaml")))
        raise SettingError(f"--arch arch={path.stem} does not exist: choose one of {known}")
    try:
        rest = OmegaConf.from_dotlist([item for item in given if not item.startswith("arch=")])
        merged: Any = OmegaConf.to_container(OmegaConf.merge({"arch": OmegaConf.load(path)}, rest), resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise SettingError(f"--arch {' '.join(given)} cannot be read ({problem}): write arch.KEY=VALUE") from None
    arch = merged["arch"]
    if "hidden_size" in arch:
        arch.setdefault("puzzle_emb_ndim", arch["hidden_size"])  # as in config/cfg_pretrain.yaml
    try:
        return ArchConfig.model_validate(arch)
    except ValidationError as error:
        raise SettingError(f"--arch {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, ('arch', *problem['loc'])))}: {problem['msg']}"


def _metadata(weights: Weights, data: Path | None) -> Any:
    """Tokens and canvas: those of `data`, else those that the record has of the last stage."""
    if data is not None:
        return storage.open_split(data, "train").metadata
    recorded = [one.tokens for stage in weights.record.stages for one in stage.data if one.tokens is not None]
    if not recorded:
        raise CheckpointError(f"{weights.source} does not say what canvas it was trained on: add --data DATA_SET")
    tokens: dict[str, Any] = recorded[-1]
    return SplitMetadata.model_construct(**tokens)
