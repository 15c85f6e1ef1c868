"""From typed settings to a train state: what to start from, found once and said once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset.encoding import BLANK_IDENTIFIER
from models.network import Network
from training import checkpoint
from training.checkpoint import Weights
from training.config import RunConfig
from training.state import TrainState
from utils import distributed


def initialise_network(network: Network, weights: Weights) -> None:
    """Loads `weights` into the network.

    Raises:
        ValueError: naming the settings that disagree.
    """
    problems = disagreements(network, weights)
    if problems:
        raise ValueError(f"{weights.source} does not fit the network: " + "; ".join(problems))
    network.load_state_dict(weights.network)


def disagreements(network: Network, weights: Weights) -> list[str]:
    """Why `weights` cannot be loaded into the network, in terms of settings; empty if they can."""
    mine, theirs = network.state_dict(), weights.network
    problems: list[str] = []

    def compare(setting: str, have: int, want: int) -> None:
        if have != want:
            problems.append(f"{setting} is {want} in the checkpoint and {have} here")

    def blocks(state: dict[str, Tensor], level: str) -> int:
        return len({key.split(".")[2] for key in state if key.startswith(f"{level}.layers.")})

    if "embed_tokens.embedding_weight" in theirs:
        vocab, width = theirs["embed_tokens.embedding_weight"].shape
        compare("the vocabulary", network.vocab_size, vocab)
        compare("arch.hidden_size", network.arch.hidden_size, width)
    for level in ("L", "H"):
        compare(f"arch.{level}_layers", blocks(mine, f"{level}_level"), blocks(theirs, f"{level}_level"))
    for key, kind in (("embed_pos", "arch.pos_encodings=learned"), ("mlp_t", "arch.mlp_t=true")):
        here, there = (any(key in name for name in state) for state in (mine, theirs))
        if here != there:
            problems.append(f"{kind} holds {'in the checkpoint' if there else 'here'} only")
    if not problems:
        for key in sorted(mine.keys() | theirs.keys()):
            if key not in theirs or key not in mine:
                problems.append(f"{key} is missing {'in the checkpoint' if key not in theirs else 'here'}")
            elif mine[key].shape != theirs[key].shape:
                problems.append(f"{key} is {tuple(theirs[key].shape)} in the checkpoint, {tuple(mine[key].shape)} here")
    return problems[:5]


def differing_settings(config: RunConfig, record: dict[str, Any]) -> list[str]:
    """Settings that weights do not show but that change what they compute, where the checkpoint's differ from ours."""
    theirs = record.get("config", {}).get("arch", {})
    names = (
        "name",
        "H_cycles",
        "L_cycles",
        "num_heads",
        "pos_encodings",
        "rope_theta",
        "rms_norm_eps",
        "puzzle_emb_len",
    )
    return [
        f"arch.{name}: {theirs[name]} there, {getattr(config.arch, name)} here"
        for name in names
        if name in theirs and theirs[name] != getattr(config.arch, name)
    ]


def initialise_rows(state: TrainState, weights: Weights, rows_from: str, puzzles: str | None) -> str:
    """Sets the puzzle rows as the settings ask; returns what was done, in words.

    Args:
        rows_from: keep, mean, noise or zero.
        puzzles: fingerprint of the data set's puzzles, None where the data set records none.

    Raises:
        ValueError: `keep` with other puzzles than the checkpoint's, or rows of another width.
    """
    table, rows, summary = state.table, weights.puzzle_rows, weights.summary
    if table is None:
        return "no puzzle rows"
    if rows is None and rows_from != "zero" and (summary is None or rows_from == "keep"):
        raise ValueError(
            f"{weights.source} holds no puzzle rows to {rows_from}: name a checkpoint that does, or train with "
            f"puzzle_rows={'mean' if summary is not None else 'zero'}"
        )
    width = rows.shape[1] if rows is not None else len(summary.mean) if summary is not None else None
    if width not in (None, table.weights.shape[1]):
        raise ValueError(
            f"{weights.source} has puzzle rows of width {width}, arch.puzzle_emb_ndim is "
            f"{table.weights.shape[1]}: set it to the checkpoint's"
        )
    if rows_from == "keep":
        assert rows is not None
        theirs = weights.record.get("puzzles")
        comparable = bool(theirs and puzzles) and str(theirs).startswith("names:") == str(puzzles).startswith("names:")
        if rows.shape != table.weights.shape or (comparable and theirs != puzzles):
            raise ValueError(
                f"{weights.source} has rows for {len(rows)} other puzzles than this data set's {len(table.weights)}: "
                "use the data set it was trained on, or set puzzle_rows=mean and fine-tune"
            )
        table.weights.copy_(rows)
        return "puzzle rows kept" + ("" if comparable else " (their order cannot be checked: no record of it)")
    if rows_from in ("mean", "noise"):
        summary = weights.row_summary()
        if summary is None:
            raise ValueError(f"{weights.source} has no trained puzzle rows to take the mean of: set puzzle_rows=zero")
        table.weights.copy_(summary.mean.expand_as(table.weights))
        if rows_from == "noise":
            generator = torch.Generator().manual_seed(state.config.seed)
            noise = torch.randn(table.weights.shape, generator=generator) * summary.spread
            table.weights += noise.to(table.weights.device)
        table.weights[BLANK_IDENTIFIER] = 0
        added = " and noise of their spread" if rows_from == "noise" else ""
        return f"puzzle rows set to the mean of {summary.count} trained rows{added}"
    table.weights.zero_()
    return "puzzle rows zero"


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
    return {} if config.load_checkpoint is None else checkpoint.record_of(Path(config.load_checkpoint))


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
    if config.resumes:
        # Rank 0 looks and reads every byte once; the others take its word.
        found, problems = distributed.from_main(lambda: checkpoint.latest_whole(directory))
        if found is not None:
            changed = check_resumable(config, found, checkpoint.read_record(found), identity)
            checkpoint.restore(state, found)
            warnings = "".join(f"warning: {problem}\n" for problem in problems)
            now = f"; settings changed since: {', '.join(changed)}" if changed else ""
            return f"{warnings}resumed from {found} at step {state.step}{now}"
    elif config.epochs and distributed.from_main(lambda: bool(checkpoint.found(directory))):
        raise ValueError(f"resume=never, but {directory} holds checkpoints: choose another checkpoint_path")
    if config.load_checkpoint is None:
        return "fresh weights: load_checkpoint names none"
    weights = checkpoint.load_weights(Path(config.load_checkpoint), config.load_averaged)
    initialise_network(state.network, weights)
    done = initialise_rows(state, weights, config.rows_from, identity["puzzles"])
    if state.table is not None and state.table.average is not None:
        state.table.average.reset()
    if state.ema is not None:
        state.ema.reset()
    differing = differing_settings(config, weights.record)
    said = f"weights of {weights.source}, {done}"
    return said + (f"; settings differ from its own ({'; '.join(differing)})" if differing else "")
