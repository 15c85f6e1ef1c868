"""Writes a checkpoint's weights for others:

    python -m training.export CHECKPOINT FILE            the published code's file, averaged weights where there are any
    python -m training.export CHECKPOINT FILE --raw      the raw weights
    python -m training.export CHECKPOINT FOLDER --format folder                    the network alone, with a model card
    python -m training.export CHECKPOINT FOLDER --format folder --push USER/NAME   and onto the Hugging Face hub

CHECKPOINT is a step_N folder of ours, a run's folder, or any file that `load_checkpoint=` takes.  Such a file does not
say what network it is of, so that FOLDER needs `--arch arch=trm arch.H_cycles=3 ..` and `--data DATA_SET` for it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from pydantic import ValidationError
from torch import Tensor

from dataset import storage
from dataset.storage import SplitMetadata
from models.arch import ArchConfig
from models.network import Network
from training import hub, sharing
from training.card import card
from training.checkpoint import PUBLISHED_TABLE, Weights, load_weights
from training.initialise import disagreements
from training.sharing import NetworkConfig, Provenance
from utils.files import write_atomically

PUBLISHED_PREFIX = "_orig_mod.model.inner."
"""What compilation and two wrappers put before every name in the published code's checkpoints."""

ARCHS = Path(__file__).resolve().parent.parent / "config" / "arch"
SCORES = "scores.json"


def published_state(weights: Weights) -> dict[str, Tensor]:
    """Weights and puzzle rows under the names that the published code gives them."""
    named = dict(weights.network)
    if weights.puzzle_rows is not None:
        named[PUBLISHED_TABLE] = weights.puzzle_rows
    return {PUBLISHED_PREFIX + key: value.contiguous() for key, value in named.items()}


def write_published(source: Path, target: Path, averaged: bool = True) -> dict[str, Tensor]:
    """Writes the published code's checkpoint file, whole or not at all.

    Raises:
        ValueError: if `source` is no checkpoint, or `target` exists.
    """
    if target.exists():
        raise ValueError(f"{target} exists: name another file or remove it")
    state = published_state(load_weights(source, averaged))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda stream: torch.save(state, stream))
    return state


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
    """Writes the network alone, with what it takes to use it (`training.sharing`).

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
    sharing.write(target, weights.network, weights.row_summary(), config, provenance, text, again)
    return config


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


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path, metavar="FILE or FOLDER")
    parser.add_argument("--raw", action="store_true", help="raw weights, not the averaged ones")
    parser.add_argument("--format", choices=("published", "folder"), default="published")
    only = parser.add_argument_group("with --format folder")
    only.add_argument("--name", help="title of the model card; FOLDER's name by default")
    only.add_argument("--licence", help="of the weights, as the hub calls it, such as mit; not stated by default")
    only.add_argument("--scores", type=Path, nargs="+", default=[], help="scores.json of further evaluations")
    only.add_argument("--arch", nargs="+", default=[], help="arch=NAME arch.KEY=VALUE .., for a file without a record")
    only.add_argument("--data", type=Path, help="a data set of the same canvas, for a file without a record")
    only.add_argument("--push", metavar="USER/NAME", help="put the folder onto the Hugging Face hub")
    only.add_argument("--private", action="store_true", help="with --push: only for those you name there")
    given = parser.parse_args()
    try:
        print(_run(given))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _run(given: argparse.Namespace) -> str:
    options = {key: getattr(given, key) for key in ("name", "licence", "scores", "arch", "data", "push", "private")}
    if given.format == "published":
        if used := [key for key, value in options.items() if value]:
            raise ValueError(f"--{used[0]} is for --format folder: add that")
        state = write_published(given.checkpoint, given.target, averaged=not given.raw)
        size = sum(value.numel() * value.element_size() for value in state.values())
        return f"{given.target}: {len(state)} tensors, {size / 1e6:,.1f} MB"
    push, private = options.pop("push"), options.pop("private")
    if push:
        hub.check(push)
    # What an upload that failed has left need not be written again.
    write_folder(given.checkpoint, given.target, not given.raw, **options, again=bool(push))
    size = sum(path.stat().st_size for path in given.target.iterdir())
    said = f"{given.target}: {', '.join(sorted(path.name for path in given.target.iterdir()))}; {size / 1e6:,.1f} MB"
    return said + (f"\n{hub.push(given.target, push, private)}" if push else "")


if __name__ == "__main__":
    main()
