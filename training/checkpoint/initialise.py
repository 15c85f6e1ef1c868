"""From typed settings to a train state: what to start from, found once and said once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dataset.encoding import BLANK_IDENTIFIER
from models.network import Network
from training.checkpoint.weights import Weights
from training.config import RunConfig
from training.state import TrainState


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
