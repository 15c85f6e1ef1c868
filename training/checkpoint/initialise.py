"""Starts a network and its puzzle rows from weights that exist."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dataset.encoding import BLANK_IDENTIFIER
from models.kernels.convolution import KERNELS
from models.network import Network
from models.puzzles.rows import BLOCK, RowBlock, RowSummary
from models.puzzles.table import PuzzleTable
from training.checkpoint.row_files import StoredRows
from training.checkpoint.sources.weights import Weights
from training.state import TrainState
from utils.errors import CheckpointError

PARTS = {
    "embed_pos": "arch.pos_encodings=learned",
    "embed_steps": "arch.step_embedding > 0",
    "mlp_t": "arch.mlp_t=true",
    "puzzle_embedding.dihedral": "arch.puzzle_embedding=composed",
    "puzzle_embedding.film": "arch.composition=scale_shift",
    "puzzle_embedding.residual": "arch.augmentation_rank > 0",
}
"""Weights, by a piece of their names, that only networks with a setting have."""


def initialise_network(network: Network, weights: Weights) -> None:
    """Loads `weights` into the network.

    Raises:
        CheckpointError: naming the settings that disagree.
    """
    problems = disagreements(network, weights)
    if problems:
        raise CheckpointError(f"{weights.source} does not fit the network: " + "; ".join(problems))
    network.load_state_dict(weights.network)


def disagreements(network: Network, weights: Weights) -> list[str]:
    """Returns why `weights` cannot be loaded into the network, in terms of settings; empty if they can."""
    mine, theirs = network.state_dict(), weights.network
    problems: list[str] = []

    def compare(setting: str, have: int, want: int) -> None:
        if have != want:
            problems.append(f"{setting} is {want} in the checkpoint and {have} here")

    if "embed_tokens.embedding_weight" in theirs:
        vocab, width = theirs["embed_tokens.embedding_weight"].shape
        compare("the vocabulary", network.vocab_size, vocab)
        compare("arch.hidden_size", network.arch.hidden_size, width)
    for level in ("L", "H"):
        compare(f"arch.{level}_layers", _num_blocks(mine, f"{level}_level"), _num_blocks(theirs, f"{level}_level"))
    for key, setting in PARTS.items():
        here, there = (any(key in name for name in state) for state in (mine, theirs))
        if here != there:
            problems.append(f"{setting} holds {'in the checkpoint' if there else 'here'} only")
    if (conv := _convolution(mine)) != (wanted := _convolution(theirs)):
        problems.append(f"arch.mlp_conv is {wanted} in the checkpoint and {conv} here")
    return (problems or _differing_tensors(mine, theirs))[:5]


def _num_blocks(state: dict[str, Tensor], level: str) -> int:
    return len({key.split(".")[2] for key in state if key.startswith(f"{level}.layers.")})


def _convolution(state: dict[str, Tensor]) -> str:
    """Returns the value of `arch.mlp_conv` that weights have; their shapes where it has no such value."""
    shape = next((tuple(value.shape[2:]) for key, value in state.items() if key.endswith("dwconv.weight")), None)
    if shape is None:
        return "none"
    return next((name for name, kernel in KERNELS.items() if kernel == shape), f"a kernel of {shape}")


def _differing_tensors(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    """Which tensors are missing or have another shape, for differences that no setting above explains."""
    problems = []
    for key in sorted(mine.keys() | theirs.keys()):
        if key not in theirs or key not in mine:
            problems.append(f"{key} is missing {'in the checkpoint' if key not in theirs else 'here'}")
        elif mine[key].shape != theirs[key].shape:
            problems.append(f"{key} is {tuple(theirs[key].shape)} in the checkpoint, {tuple(mine[key].shape)} here")
    return problems


@dataclass(frozen=True)
class RowsStart:
    """What the puzzle rows start from.

    rows_from: keep, mean, noise, zero, or none if the network has no puzzle rows.  trained: of how many rows the mean
    was taken.  checked: whether kept rows are known to belong to the same puzzles.  of: whose they are, puzzle or task.
    """

    rows_from: str
    trained: int = 0
    checked: bool = True
    of: str = "puzzle"

    def __str__(self) -> str:
        if self.rows_from == "none":
            return f"no {self.of} rows"
        if self.rows_from == "keep":
            unchecked = f" (the order of the {self.of}s cannot be checked: it was not recorded)"
            return f"{self.of} rows kept" + ("" if self.checked else unchecked)
        if self.rows_from == "zero":
            return f"{self.of} rows zero"
        noise = " plus noise of their spread" if self.rows_from == "noise" else ""
        return f"{self.of} rows set to the mean of {self.trained} trained rows{noise}"


def initialise_rows(
    state: TrainState, weights: Weights, rows_from: str, puzzles: str | None, tasks: str | None = None
) -> RowsStart:
    """Sets the rows of puzzles, or of tasks if the embedding is composed of them.

    What a composed embedding stores per puzzle beside its tasks' rows is kept with the rows of the same puzzles.  For
    others it begins at zero.

    Args:
        rows_from: keep, mean, noise or zero, as the setting `puzzle_rows`.
        puzzles: fingerprint of the data set's puzzles, None if the data set does not record any.
        tasks: fingerprint of its tasks, for a composed embedding.

    Returns:
        what was done.

    Raises:
        CheckpointError: if `weights` do not have what `rows_from` asks for, or not of this width or these puzzles.
    """
    table = state.table
    if table is None:
        return RowsStart("none")
    is_composed = state.config.arch.is_composed
    of = "task" if is_composed else "puzzle"
    if (residual := state.tables.residual) is not None:
        residual.fill(torch.zeros(residual.width))
    _check_row_width(table, weights)
    if rows_from == "zero":
        table.fill(torch.zeros(table.width))
        return RowsStart("zero", of=of)
    if rows_from == "keep":
        if not is_composed:
            return _keep_rows(table, weights, weights.record.puzzles, puzzles, of)
        kept = _keep_rows(table, weights, weights.record.tasks, tasks, of)
        stored = weights.residual_rows
        are_the_same = puzzles is not None and weights.record.puzzles == puzzles
        if residual is not None and stored is not None and are_the_same:
            _take_rows(residual, stored)
        return kept
    summary = _summary_of(weights, rows_from)
    table.fill(summary.mean)
    if rows_from == "noise":
        generator = torch.Generator().manual_seed(state.config.seed)
        for first in range(0, table.num, BLOCK):
            identifiers = torch.arange(first, min(first + BLOCK, table.num))
            noise = torch.randn((len(identifiers), table.width), generator=generator) * summary.spread
            table.put({"identifiers": identifiers, "weights": summary.mean + noise})
    table.put({"identifiers": torch.tensor([BLANK_IDENTIFIER]), "weights": torch.zeros(1, table.width)})
    return RowsStart(rows_from, trained=summary.count, of=of)


def _check_row_width(table: PuzzleTable, weights: Weights) -> None:
    width = None
    if weights.puzzle_rows is not None:
        width = weights.puzzle_rows.shape[1]
    elif weights.summary is not None:
        width = len(weights.summary.mean)
    if width not in (None, table.width):
        raise CheckpointError(
            f"{weights.source} has puzzle rows of width {width}, arch.puzzle_emb_ndim is "
            f"{table.width}: set it to {width}"
        )


def _keep_rows(table: PuzzleTable, weights: Weights, theirs: str | None, ours: str | None, of: str) -> RowsStart:
    """Takes the rows as they are, which must be those of the same puzzles, or of the same tasks.

    Args:
        theirs, ours: fingerprints of what the rows belong to, of the weights and of the data set.
        of: what that is, puzzle or task.
    """
    rows = weights.puzzle_rows
    if rows is None:
        raise _no_rows(weights, "keep", remedy="zero" if weights.summary is None else "mean")
    # Two kinds of fingerprint cannot be compared: that of names, and that of content.
    checked = bool(theirs and ours) and str(theirs).startswith("names:") == str(ours).startswith("names:")
    if tuple(rows.shape) != (table.num, table.width) or (checked and theirs != ours):
        raise CheckpointError(
            f"{weights.source} has rows for {len(rows)} other {of}s than this data set's {table.num}: "
            "use the data set it was trained on, or set puzzle_rows=mean and fine-tune"
        )
    _take_rows(table, rows)
    return RowsStart("keep", checked=checked, of=of)


def _take_rows(table: PuzzleTable, rows: Tensor | StoredRows) -> None:
    """Sets the rows of a table to existing ones, of which only those that are not zero are written."""
    table.fill(rows.started_as if isinstance(rows, StoredRows) else torch.zeros(table.width))
    blocks = rows.blocks() if isinstance(rows, StoredRows) else _blocks_of(rows)
    for block in blocks:
        table.put({"identifiers": block["identifiers"], "weights": block["weights"]})


def _blocks_of(rows: Tensor) -> Iterator[RowBlock]:
    for first in range(0, len(rows), BLOCK):
        piece = rows[first : first + BLOCK].float()
        trained = torch.nonzero((piece != 0).any(1)).squeeze(1)
        yield {"identifiers": trained + first, "weights": piece[trained]}


def _summary_of(weights: Weights, rows_from: str) -> RowSummary:
    if weights.puzzle_rows is None and weights.summary is None:
        raise _no_rows(weights, rows_from, remedy="zero")
    summary = weights.row_summary()
    if summary is None:
        raise CheckpointError(f"{weights.source} has no trained puzzle rows to take the mean of: set puzzle_rows=zero")
    return summary


def _no_rows(weights: Weights, rows_from: str, remedy: str) -> CheckpointError:
    return CheckpointError(
        f"{weights.source} has no puzzle rows for puzzle_rows={rows_from}: name a checkpoint that does, or train with "
        f"puzzle_rows={remedy}"
    )
