"""The settings of what a puzzle is to a run: its augmentations and its row."""

from __future__ import annotations

from typing import Literal

from training.config.roles import setting
from training.config.section import Section


class AugmentationSettings(Section):
    """Which augmentations the run trains on."""

    topic = "Augmentations"

    fresh_augmentations: bool = setting(
        False,
        "each visit of a task draws a new augmentation, without end, in place of a stored one; needs "
        "arch.puzzle_embedding=composed, since such a puzzle has no row of its own",
        resume="fixed",
        recipe=True,
        solver="accepted",
    )


class PuzzleRowSettings(Section):
    """Each puzzle, or each task of a composed embedding, has a learnt row in the puzzle table; an optimizer of its own
    trains the rows."""

    topic = "Puzzle rows"

    puzzle_emb_lr: float = setting(
        1e-2, "learning rate of the puzzle rows", resume="reported", recipe=True, solver="inherited", ge=0
    )
    residual_lr: float | None = setting(
        None,
        "learning rate of the rows that arch.augmentation_rank > 0 gives to puzzles beside those of their tasks; null: "
        "puzzle_emb_lr",
        resume="reported",
        recipe=True,
        solver="inherited",
        ge=0,
    )
    puzzle_emb_weight_decay: float = setting(
        0.1,
        "weight decay of the puzzle rows; only rows in the batch decay",
        resume="reported",
        recipe=True,
        solver="inherited",
        ge=0,
    )
    puzzle_table: Literal["device", "host", "disk"] = setting(
        "device",
        "where the puzzle rows lie. device: in the memory of each GPU (or of the CPU). host: in host memory; a step "
        "copies the rows of its batch. disk: in a sparse file, in which rows that were never visited take no room. All "
        "give the same numbers",
        resume="reported",
    )
    puzzle_table_folder: str | None = setting(
        None, "folder on a local disk for the file of puzzle_table=disk; null: the run's folder", resume="silent"
    )
    puzzle_table_shards: Literal["none", "ranks"] = setting(
        "none",
        "ranks: each rank stores its part of the puzzle rows, and ranks exchange those of a batch. none: each rank "
        "stores all of them",
        resume="reported",
    )
