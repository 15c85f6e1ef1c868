"""Writes a network as a folder that can be shared: weights, configuration, provenance, model card."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from models.network import Network
from training.checkpoint import (
    NetworkConfig,
    Provenance,
    disagreements,
    exported,
    load_weights,
    network_config,
)
from training.export.model_card import card

SCORES = "scores.json"


def write_folder(
    source: Path,
    target: Path,
    averaged: bool = True,
    *,
    name: str | None = None,
    licence: str | None = None,
    arch: Sequence[str] = (),
    data: Path | None = None,
    scores: Sequence[Path] = (),
    again: bool = False,
) -> NetworkConfig:
    """Writes the network alone, with what it takes to use it (`training.checkpoint.exported`).

    Args:
        name: the card's title; the target's by default.
        licence: of the weights, as the hub calls it.
        arch: `arch=NAME` and `arch.KEY=VALUE`, for a source that does not record its network.
        data: a data set like the one trained on, for a source that does not record its canvas.
        scores: `scores.json` of evaluations to tell besides that of the checkpoint itself.
        again: a target that an equal call has written is left as it is.

    Raises:
        ValueError: if something that is needed is not known, or `target` exists.
    """
    weights = load_weights(source, averaged)
    config = network_config(weights, arch, data)
    network = Network(config.arch, config.tokens.vocab_size, config.canvas.seq_len, torch.Generator())
    if problems := disagreements(network, weights):
        raise ValueError(f"{weights.source} is not of this network: " + "; ".join(problems))
    record, folder = weights.record, Path(weights.source)
    is_averaged = averaged and "ema.safetensors" in record.get("files", {})
    told = "averaged" if is_averaged else "raw" if record else "unknown"
    step = record.get("step")
    own = sorted(folder.parent.glob(f"evaluation_step_{step}/{SCORES}"))
    stages = [dict(stage) for stage in record.get("stages", [])]
    if stages and step is not None:
        stages[-1]["step"] = step
    provenance = Provenance(
        weights=record.get("weights", told),
        step=step,
        stages=_with_short_paths(stages),
        scores=_with_short_paths([*record.get("scores", []), *(_scores(path) for path in [*own, *scores])]),
        task_keys=record.get("task_keys", {}),
        git=record.get("git"),
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    text = card(name or target.resolve().name, config, provenance, parameters, licence)
    exported.write(target, weights.network, weights.row_summary(), config, provenance, text, again)
    return config


def _scores(path: Path) -> dict[str, Any]:
    """An evaluation's metrics and their conditions."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        conditions = metrics.pop("conditions")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is no scores.json of an evaluation ({error}): name one") from None
    kept = {key: value for key, value in conditions.items() if key not in ("data", "puzzles")}
    return {"metrics": metrics, "conditions": kept}


def _with_short_paths(value: Any) -> Any:
    """The same, in which no path tells more of a machine than its last two names."""
    if isinstance(value, dict):
        return {key: _with_short_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_short_paths(inner) for inner in value]
    if isinstance(value, str) and re.search(r"[/\\]", value):
        return "/".join([name for name in re.split(r"[/\\]", value) if name][-2:])
    return value
