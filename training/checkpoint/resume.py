"""Decides what a run starts from: its own last checkpoint, other weights, or fresh ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.checkpoint import reader
from training.checkpoint.initialise import differing_settings, initialise_network, initialise_rows
from training.checkpoint.weights import load_weights, record_of
from training.config import RunConfig
from training.state import TrainState
from utils import distributed

FIXED = (
    "arch",
    "canvases",
    "global_batch_size",
    "micro_batch_size",
    "seed",
    "ema",
    "ema_puzzle_rows",
    "freeze_weights",
    "finetune_on",
    "train_augmentations",
    "tasks",
    "load_checkpoint",
    "puzzle_rows",
)
"""Settings that a resumed run cannot change: they decide what the state is made of and which data follow."""

NEWER: dict[str, Any] = {"canvases": None, "micro_batch_size": None}
"""Those of them that a record may not know yet, as they were then."""

FREE = (
    "checkpoint_path",
    "project_name",
    "run_name",
    "resume",
    "log_every",
    "tracker",
    "device",
    "compile",
    "activation_checkpointing",
    "dry_run",
    "epochs",
    "data_paths",
)
"""Settings that may change without being worth a word."""


def check_resumable(config: RunConfig, found: Path, record: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """What has changed since a checkpoint, in words.

    Raises:
        ValueError: if the run cannot go on from it as it is set now.
    """
    if record.get("data") != identity["data"]:
        raise ValueError(
            f"{found} was trained on another data set than data_paths={config.data_paths}: "
            "use that one, or another checkpoint_path"
        )
    theirs, mine = record.get("config", {}), config.model_dump(mode="json")
    if theirs:
        theirs = NEWER | theirs
    changed = [
        f"{name}={theirs[name]} there, {mine[name]} here"
        for name in FIXED
        if theirs.get(name, mine.get(name)) != mine.get(name)
    ]
    per_interval = min(theirs.get("eval_interval") or theirs.get("epochs", 0), theirs.get("epochs", 0)) or 1
    if theirs and per_interval != config.epochs_per_interval:
        changed.append(f"eval_interval={per_interval} there, {config.epochs_per_interval} here")
    if changed:
        raise ValueError(
            f"{found} cannot be resumed with other settings ({'; '.join(changed)}): "
            "set them as they were, or choose another checkpoint_path"
        )
    others = mine.keys() & theirs.keys() - {*FIXED, *FREE, "eval_interval"}
    return [f"{name} {theirs[name]} -> {mine[name]}" for name in sorted(others) if theirs[name] != mine[name]]


def record_before(config: RunConfig) -> dict[str, Any]:
    """The record of the weights that `load_checkpoint` names; empty where there is none."""
    return {} if config.load_checkpoint is None else record_of(Path(config.load_checkpoint))


def seen_tasks(config: RunConfig) -> dict[str, str]:
    """The tasks that the weights of `load_checkpoint` were trained on, as its record says: key -> whole or
    demonstrations; empty without a record."""
    return dict(record_before(config).get("task_keys", {}))


def stages_before(config: RunConfig) -> list[dict[str, Any]]:
    """The runs that the weights of `load_checkpoint` come from, the first one first, the last one with its steps."""
    record = record_before(config)
    stages = [dict(stage) for stage in record.get("stages", [])]
    return [*stages[:-1], stages[-1] | {"step": record["step"]}] if stages else []


def start(state: TrainState, directory: Path, identity: dict[str, Any]) -> str:
    """Resumes from the run's own folder, else initialises from `load_checkpoint`, else leaves fresh weights.

    Args:
        identity: `data` and `puzzles` fingerprints of the data sets; a resumed run must be on the same data.

    Returns:
        what was found, where, and what was done with it.
    """
    config = state.config
    assert isinstance(config, RunConfig), "the settings do not say what to start from"
    if config.resumes:
        # Rank 0 looks and reads every byte once; the others take its word.
        found, problems = distributed.from_main(lambda: reader.latest_whole(directory))
        if found is not None:
            changed = check_resumable(config, found, reader.read_record(found), identity)
            reader.restore(state, found)
            warnings = "".join(f"warning: {problem}\n" for problem in problems)
            now = f"; settings changed since: {', '.join(changed)}" if changed else ""
            return f"{warnings}resumed from {found} at step {state.step}{now}"
    elif config.epochs and distributed.from_main(lambda: bool(reader.found(directory))):
        raise ValueError(f"resume=never, but {directory} holds checkpoints: choose another checkpoint_path")
    if config.load_checkpoint is None:
        return "fresh weights: load_checkpoint names none"
    weights = load_weights(Path(config.load_checkpoint), config.load_averaged)
    initialise_network(state.network, weights)
    done = initialise_rows(state, weights, config.rows_from, identity["puzzles"])
    if state.table is not None and state.table.average is not None:
        state.table.average.reset()
    if state.ema is not None:
        state.ema.reset()
    differing = differing_settings(config, weights.record)
    said = f"weights of {weights.source}, {done}"
    return said + (f"; settings differ from its own ({'; '.join(differing)})" if differing else "")
