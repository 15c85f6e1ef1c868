"""config/experiment: every recipe composes, says what it must, and makes a step."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from dataset.augmentation import IDENTITY_ROW
from dataset.data_shape import DataShape
from dataset.sampling.joined import Batch
from training.config import EvalConfig, PretrainConfig, RunConfig
from training.launch.cli import CONFIG_DIR, GROUPS
from training.launch.overrides import check_overrides, validate
from training.state import TrainState
from training.step import train_step

RECIPES = sorted(path.stem for path in (Path(CONFIG_DIR) / "experiment").glob("*.yaml"))
SMALL = (
    "micro_batch_size=null",
    "arch.hidden_size=32",
    "arch.num_heads=2",
    "arch.L_layers=1",
    "arch.expansion=1",
    "arch.forward_dtype=float32",
    "global_batch_size=4",
    "lr_warmup_steps=0",
    "compile=false",
    "device=cpu",
)


def header(name: str) -> str:
    lines = (Path(CONFIG_DIR) / "experiment" / f"{name}.yaml").read_text().splitlines()
    return "\n".join(line for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])


def script_of(name: str) -> tuple[str, type[RunConfig]]:
    """The script that the recipe's own command names."""
    command = re.search(rf"(pretrain_no_eval|eval_arc_k10)\.py \+experiment={name}\b", header(name))
    assert command is not None, f"{name} does not open with its command"
    return {"pretrain_no_eval": ("cfg_pretrain", PretrainConfig), "eval_arc_k10": ("cfg_eval", EvalConfig)}[command[1]]


def composed(name: str, *overrides: str) -> Any:
    config_name, model = script_of(name)
    chosen = [f"+experiment={name}", *overrides]
    check_overrides(chosen, model, GROUPS)
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return validate(compose(config_name, overrides=chosen), model)


def test_there_are_the_recipes_that_users_look_for() -> None:
    assert {"nvarc_pretrain", "nvarc_finetune", "arc1", "arc2", "sudoku_mlp", "sudoku_attention", "maze"} <= set(
        RECIPES
    )
    assert {"finetune_4xl4", "demo", "demo_finetune", "sudoku_small"} <= set(RECIPES)
    assert {"urm", "charm", "modern_pretrain", "modern_finetune", "modern_sudoku"} <= set(RECIPES)


PARTS = (
    r"\bHardware:",
    r"\bDuration\b",
    r"\b[Ss]core:",
    r"\bRates: those of (the package )?adam-atan2\b",
    r"\bDiffers from\b",
)
"""What the header of a recipe says, besides its command."""


def missing_parts(comment: str) -> list[str]:
    text = re.sub(r"\s*#\s*", " ", comment)
    return [part for part in PARTS if not re.search(part, text)]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_say_what_they_are(name: str) -> None:
    assert missing_parts(header(name)) == []
    scale = 1.27 if "adam-atan2-pytorch" in header(name) else 1.0
    assert composed(name).atan2_scale == scale


def test_a_recipe_without_a_score_is_noticed() -> None:
    without = header("demo").replace("Duration and score:", "Duration:")
    assert "2 CPU cores" in without and missing_parts(without) == [r"\b[Ss]core:"]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_make_a_step(name: str) -> None:
    config = composed(name, *SMALL)
    assert config.arch.hidden_size == 32  # an override on top of a recipe wins
    composed_of = {"num_task_rows": 5} if config.arch.is_composed else {}
    state = TrainState(config, DataShape(12, 36, 5, 0, **composed_of), torch.device("cpu"))
    rng = np.random.default_rng(0)
    inputs, labels = rng.integers(1, 12, (2, 4, 36)).astype(np.uint8)
    before = {name: p.detach().clone() for name, p in state.network.named_parameters()}
    numbers = np.array([0, 1, 2, 3], dtype=np.int32)
    batch = Batch(inputs, labels, numbers)
    if config.arch.is_composed:
        batch = Batch(inputs, labels, numbers, numbers, np.tile(IDENTITY_ROW, (4, 1)))
    train_step(state, batch, total_steps=10)
    state.guard.raise_if_bad()
    assert np.isfinite(state.sums.reduce()["lm_loss"])
    assert any(not torch.equal(p, before[name]) for name, p in state.network.named_parameters())


def test_the_modern_recipes_fit_together() -> None:
    """Fine-tuning has the network and the optimizer of the pretraining."""
    before, after, old = composed("modern_pretrain"), composed("modern_finetune"), composed("nvarc_finetune")
    same = ("puzzle_embedding", "composition", "augmentation_rank", "L_layers", "L_cycles", "mlp_conv", "prefix_len")
    assert [getattr(before.arch, name) for name in same] == [getattr(after.arch, name) for name in same]
    assert before.arch.is_composed and before.arch.prefix_len == 11
    assert before.optimizer == after.optimizer == "muon" and before.canvases == after.canvases == "fitted"
    assert (after.epochs, after.rows_from, after.global_batch_size) == (old.epochs, "mean", old.global_batch_size)
    small, modern = composed("sudoku_small"), composed("modern_sudoku")
    changed = {name for name, value in modern if value != getattr(small, name)}
    assert changed == {"optimizer", "lr", "checkpoint_path"}


def test_published_settings_of_the_recipes() -> None:
    pretrain = composed("nvarc_pretrain")
    assert (pretrain.global_batch_size, pretrain.lr, pretrain.arch.L_cycles, pretrain.num_intervals) == (
        3072,
        3e-4,
        4,
        10,
    )
    finetune = composed("nvarc_finetune")
    assert (finetune.epochs, finetune.arch.halt_max_steps, finetune.rows_from) == (2000, 10, "mean")
    mlp, attention, maze = (composed(name) for name in ("sudoku_mlp", "sudoku_attention", "maze"))
    assert mlp.arch.mlp_t and not attention.arch.mlp_t and attention.arch.pos_encodings == "rope"
    urm = composed("urm")
    assert (urm.arch.name, urm.arch.L_layers, urm.arch.H_cycles, urm.arch.L_cycles) == ("urm", 4, 2, 6)
    assert (urm.arch.mlp_conv, urm.arch.prefix_len, urm.arch.puzzle_emb_ndim) == ("raster2", 1, 512)
    assert (urm.optimizer, urm.muon_matrices, urm.muon_coefficients, urm.muon_split) == ("muon", "all", "urm", False)
    assert (urm.lr, urm.epochs, urm.global_batch_size, urm.arch.halt_max_steps) == (1e-4, 200_000, 768, 16)
    charm = composed("charm")
    assert (charm.arch.name, charm.arch.composition, charm.arch.augmentation_rank) == ("urm", "scale_shift", 32)
    assert charm.arch.model_copy(update={"puzzle_embedding": "table", "augmentation_rank": 0}) == urm.arch.model_copy(
        update={"composition": "scale_shift"}
    )
    assert (charm.optimizer, charm.muon_matrices, charm.lr, charm.global_batch_size) == ("muon", "all", 1e-4, 768)
    assert (charm.puzzle_emb_lr, charm.residual_lr, charm.ema_rate) == (1e-3, 1e-2, 0.999)
    assert (mlp.weight_decay, mlp.puzzle_emb_lr, maze.arch.L_cycles, mlp.arch.L_cycles) == (1.0, 1e-4, 4, 6)
