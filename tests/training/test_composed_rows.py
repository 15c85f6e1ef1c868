"""training/slots/tables/row_tables.py: which rows a composed puzzle embedding trains, keeps, starts from and costs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset.data_shape import DataShape
from models.act import initial_carry, refill
from models.puzzles.embedding import ComposedRows
from tests.builders.states import (
    COMPOSED_SHAPE,
    CPU,
    C,
    assert_equal,
    batch_of,
    composed_state,
    state_of,
    tensors,
    train_on,
    trained,
)
from training import checkpoint
from training.checkpoint import CheckpointRecord, RowsStart
from training.export.published_format import published_state
from training.metrics import cost_model
from training.metrics.cost_model import Workload
from training.state import TrainState
from training.step import to_slots, train_step
from utils.errors import CheckpointError, SettingError

COMPOSITIONS = pytest.mark.parametrize("composition", ["prefix", "scale_shift"])


def record(state: TrainState, **more: Any) -> CheckpointRecord:
    return CheckpointRecord(config=state.config.model_dump(mode="json"), **more)


@COMPOSITIONS
def test_a_tasks_row_moves_by_the_sum_over_its_augmentations_and_no_other_row_moves(composition: str) -> None:
    """Three slots of task 2 under three augmentations, one of task 3: one step of sign descent each."""
    state = composed_state(composition, puzzle_emb_lr=0.1, residual_lr=0.02, puzzle_emb_weight_decay=0.5)
    assert state.table is not None and state.tables.residual is not None
    state.table.weights.normal_(generator=torch.Generator().manual_seed(1))
    state.tables.residual.weights[1:].normal_(generator=torch.Generator().manual_seed(2))
    batch = batch_of(0, COMPOSED_SHAPE)
    assert batch.tasks is not None
    batch.tasks[:] = [2, 2, 3, 2]
    batch.puzzle_identifiers[:] = [4, 5, 6, 0]  # the last one is fresh
    before = [table.weights.clone() for table in state.tables]

    slots = to_slots(batch, CPU)
    carry = refill(initial_carry(state.network, slots), slots, state.network.initial_latents())
    leaf, residuals = before[0][slots.tasks.long()], before[1][slots.puzzle_identifiers.long()]  # type: ignore[union-attr]
    assert slots.augmentations is not None
    rows = ComposedRows(leaf.requires_grad_(), residuals.requires_grad_(), slots.augmentations)
    copy.deepcopy(state.act_step).train()(carry, rows)[1].backward()
    assert leaf.grad is not None and residuals.grad is not None
    signs = [leaf.grad[slot].sign() for slot in (0, 1, 3)]
    assert not all(torch.equal(sign, leaf.grad[[0, 1, 3]].sum(0).sign()) for sign in signs)

    train_step(state, batch, total_steps=10)
    expected = before[0].clone()
    for task, slots_of_task in ((2, [0, 1, 3]), (3, [2])):
        expected[task] = before[0][task] * (1 - 0.1 * 0.5) - 0.1 * leaf.grad[slots_of_task].sum(0).sign()
    torch.testing.assert_close(state.table.weights, expected)
    of_puzzles = before[1].clone()
    for slot, puzzle in enumerate((4, 5, 6)):
        of_puzzles[puzzle] = before[1][puzzle] * (1 - 0.02 * 0.5) - 0.02 * residuals.grad[slot].sign()
    torch.testing.assert_close(state.tables.residual.weights, of_puzzles)
    assert not state.tables.residual.weights[0].any()  # what has no row of its own leaves none


@COMPOSITIONS
def test_a_run_that_resumes_is_the_straight_run_to_the_bit(composition: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"ema_puzzle_rows": True, "lr_warmup_steps": 2}
    straight = train_on(composed_state(composition, **settings), 6)
    half = train_on(composed_state(composition, **settings), 3)
    path = checkpoint.save_checkpoint(half, tmp_path, record(half))
    again = composed_state(composition, **settings)
    checkpoint.restore_state(again, path)
    assert_equal(train_on(again, 3, first=3), straight)
    held = tensors(straight)
    assert {"carry/0.0.data.tasks", "carry/0.0.data.augmentations", "residual_table/weights"} <= held.keys()
    assert any(key.startswith("ema/puzzle_embedding.") for key in held)  # ordinary weights, averaged and in AdamAtan2
    assert any(key.startswith("optimizer/exp_avg.puzzle_embedding.") for key in held)
    with pytest.raises(CheckpointError, match="slots are not those"):
        again.carries.load_carry({k: v for k, v in again.carries.carry_tensors().items() if not k.endswith("tasks")})


@COMPOSITIONS
def test_micro_batches_add_up_to_the_batch(composition: str) -> None:
    whole, pieces = (train_on(composed_state(composition, micro_batch_size=size), 3) for size in (None, 2))
    for mine, theirs in zip(whole.tables, pieces.tables, strict=True):
        torch.testing.assert_close(mine.weights, theirs.weights)
    for name, weight in whole.network.named_parameters():
        torch.testing.assert_close(pieces.network.get_parameter(name), weight, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_the_compiled_step_gives_the_same_gradients_to_rows() -> None:
    """Compiled on a CPU, gradients of columns that are cut off were memory that nobody had written."""
    plain, compiled = (train_on(composed_state(rank=2, compile=on), 2) for on in (False, True))
    for mine, theirs in zip(plain.tables, compiled.tables, strict=True):
        assert mine.weights.any()
        torch.testing.assert_close(mine.weights, theirs.weights, rtol=1e-3, atol=1e-4)


def test_weights_of_another_embedding_are_refused_in_a_sentence(tmp_path: Path) -> None:
    table, prefix, scaled = trained(1), train_on(composed_state(rank=0), 1), train_on(composed_state("scale_shift"), 1)
    paths = {
        name: checkpoint.save_checkpoint(state, tmp_path / name, record(state))
        for name, state in (("table", table), ("prefix", prefix), ("scaled", scaled))
    }
    for here, there, said in (
        (composed_state(), "table", "arch.puzzle_embedding=composed holds here only"),
        (state_of(), "prefix", "arch.puzzle_embedding=composed holds in the checkpoint only"),
        (composed_state(rank=2), "prefix", "arch.augmentation_rank > 0 holds here only"),
        (composed_state(), "scaled", "arch.composition=scale_shift holds in the checkpoint only"),
    ):
        with pytest.raises(CheckpointError, match="does not fit the network") as error:
            checkpoint.initialise_network(here.network, checkpoint.load_weights(paths[there]))
        assert said in str(error.value)
    with pytest.raises(CheckpointError, match="which the published code does not know"):
        published_state(checkpoint.load_weights(paths["prefix"]))
    with pytest.raises(SettingError, match="about the colours of ARC"):
        state_of(DataShape(11, C, 7, 0, num_task_rows=4), arch={"puzzle_embedding": "composed", "puzzle_emb_len": 0})


def test_rows_of_tasks_start_as_told_and_those_of_other_puzzles_at_zero(tmp_path: Path) -> None:
    state = train_on(composed_state(), 3)
    path = checkpoint.save_checkpoint(state, tmp_path, record(state, puzzles="p", tasks="t"))
    loaded = checkpoint.load_weights(path)
    residual = state.tables.residual
    assert state.table is not None and residual is not None and residual.weights.any()
    fresh = composed_state()
    mine = fresh.tables.residual
    assert fresh.table is not None and mine is not None
    # The same tasks under other augmentations: their rows are kept, nothing is known of the augmentations.
    assert checkpoint.initialise_rows(fresh, loaded, "keep", "p", "t") == RowsStart("keep", of="task")
    assert torch.equal(fresh.table.weights, state.table.weights) and torch.equal(mine.weights, residual.weights)
    assert checkpoint.initialise_rows(fresh, loaded, "keep", "q", "t") == RowsStart("keep", of="task")
    assert torch.equal(fresh.table.weights, state.table.weights) and not mine.weights.any()
    with pytest.raises(CheckpointError, match="rows for 4 other tasks"):
        checkpoint.initialise_rows(fresh, loaded, "keep", "p", "u")
    # Other tasks, of another number.
    more = TrainState(fresh.config, DataShape(12, C, 30, 0, num_task_rows=9), CPU)
    start = checkpoint.initialise_rows(more, loaded, "mean", "q", "u")
    seen = state.table.weights[(state.table.weights != 0).any(1)]
    assert start == RowsStart("mean", trained=len(seen), of="task") and "task rows set to the mean" in str(start)
    assert more.table is not None and more.tables.residual is not None
    torch.testing.assert_close(more.table.weights[1:], seen.mean(0).expand(8, -1))
    assert not more.table.weights[0].any() and not more.tables.residual.weights.any()


@COMPOSITIONS
def test_memory_and_disk_are_what_a_state_holds(composition: str) -> None:
    state = composed_state(composition)
    held = tensors(train_on(state, 1))
    assert state.config.arch.augmentation_rank == 2
    memory = cost_model.step_memory(state.config.arch, [Workload(C, 4)], COMPOSED_SHAPE.num_puzzle_identifiers, tasks=4)
    size = dict.fromkeys(("network", "puzzle_table", "residual_table", "carry"), 0)
    for key, value in held.items():
        part = key.split("/")[0]
        if part in size and "init" not in key:
            size[part] += value.numel() * value.element_size()
    assert memory.weights / 2 == size["network"]
    assert memory.puzzle_rows == size["puzzle_table"] + size["residual_table"]
    assert memory.carry / 2 == pytest.approx(size["carry"], rel=0.02)
    total = sum(value.numel() * value.element_size() for key, value in held.items() if not key.startswith("metrics"))
    assert state.num_bytes() + memory.puzzle_rows == total


def test_without_a_residual_nothing_is_stored_per_augmentation() -> None:
    many = state_of(
        DataShape(12, C, 10**9, 0, num_task_rows=4), arch={"puzzle_embedding": "composed", "puzzle_emb_len": 0}
    )
    assert [len(table.weights) for table in many.tables] == [4]


def test_fresh_augmentations_need_an_embedding_that_knows_them() -> None:
    with pytest.raises(ValueError, match="no table has a row for"):
        state_of(fresh_augmentations=True)
    composed_state(fresh_augmentations=True)
    state_of(arch={"puzzle_emb_ndim": 0, "puzzle_emb_len": 0}, fresh_augmentations=True)
