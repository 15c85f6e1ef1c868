"""Writes a network as a folder that can be shared: weights, configuration, provenance, model card."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.network import Network
from training.checkpoint import (
    CheckpointRecord,
    NetworkConfig,
    Provenance,
    Weights,
    WeightsAre,
    disagreements,
    load_weights,
    network_config,
    write_exported,
)
from training.export.model_card import model_card
from utils.errors import CheckpointError, SubmissionError

SCORES = "scores.json"


@dataclass(frozen=True)
class ExportDetails:
    """What the user tells besides what the weights say of themselves.

    name: the title of the model card; the folder's name by default.
    licence: of the weights, by its name on the hub, such as mit; None: not stated.
    arch: `arch=NAME` and `arch.KEY=VALUE`, for weights whose record does not name their network.
    data: a data set like the one trained on, for weights whose record does not name their canvas.
    scores: `scores.json` of evaluations besides that of the checkpoint itself.
    """

    name: str | None = None
    licence: str | None = None
    arch: Sequence[str] = ()
    data: Path | None = None
    scores: Sequence[Path] = ()


def write_folder(
    source: Path,
    target: Path,
    averaged: bool = True,
    details: ExportDetails | None = None,
    again: bool = False,
) -> NetworkConfig:
    """Writes the network alone, with what it takes to use it (`training.checkpoint.sources.exported` lists the files).

    Args:
        averaged: take the averaged weights, if there are any.
        again: accept a target that an equal call has written, and leave it as it is.

    Raises:
        CheckpointError: if something that is needed is not known, or `target` exists.
    """
    details = details or ExportDetails()
    weights = load_weights(source, averaged)
    config = network_config(weights, details.arch, details.data)
    network = Network(config.arch, config.tokens.vocab_size, config.canvas.seq_len, torch.Generator())
    if problems := disagreements(network, weights):
        raise CheckpointError(f"{weights.source} is not of this network: " + "; ".join(problems))
    provenance = _provenance(weights, averaged, details.scores)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    card = model_card(details.name or target.resolve().name, config, provenance, parameters, details.licence)
    write_exported(target, weights.network, weights.row_summary(), config, provenance, card, again)
    return config


def _provenance(weights: Weights, averaged: bool, more_scores: Sequence[Path]) -> Provenance:
    record, checkpoint = weights.record, Path(weights.source)
    own_scores = sorted(checkpoint.parent.glob(f"evaluation_step_{record.step}/{SCORES}"))
    stages = [stage.model_dump(mode="json") for stage in record.complete_stages]
    scores = [*record.scores, *(_read_scores(path) for path in [*own_scores, *more_scores])]
    return Provenance(
        weights=_are_averaged(record, averaged),
        step=record.step,
        stages=_with_short_paths(stages),
        scores=_with_short_paths(scores),
        task_keys=record.task_keys,
        git=record.git,
    )


def _are_averaged(record: CheckpointRecord, averaged: bool) -> WeightsAre:
    if record.weights is not None:  # exported before
        return record.weights
    if record.is_empty:
        return "unknown"
    return "averaged" if averaged and record.has_part("ema") else "raw"


def _read_scores(path: Path) -> dict[str, Any]:
    """The metrics of an evaluation and their conditions."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        conditions = metrics.pop("conditions")
        kept = {key: value for key, value in conditions.items() if key not in ("data", "puzzles")}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise SubmissionError(f"{path} is not the scores.json of an evaluation ({error}): name one") from None
    return {"metrics": metrics, "conditions": kept}


def _with_short_paths(value: Any) -> Any:
    """The same value, in which every path is cut to its last two names: the others are this machine's."""
    if isinstance(value, dict):
        return {key: _with_short_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_short_paths(inner) for inner in value]
    if isinstance(value, str) and re.search(r"[/\\]", value):
        return "/".join([name for name in re.split(r"[/\\]", value) if name][-2:])
    return value
