"""What only a GPU can show: `make gpu`.  Skipped where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataset.data_shape import DataShape
from tests.builders.states import batch_of, state_of
from tests.conftest import ROOT, SMALL
from training import checkpoint
from training.state import TrainState
from training.step import train_step
from utils.metrics_log import read_metrics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

B = 8
CUDA = torch.device("cuda", 0)


ARCH = {
    "hidden_size": 128,
    "num_heads": 4,
    "H_cycles": 2,
    "L_cycles": 2,
    "L_layers": 2,
    "expansion": 4.0,
    "puzzle_emb_ndim": 128,
    "puzzle_emb_len": 4,
    "halt_max_steps": 4,
    "forward_dtype": "bfloat16",
}
SHAPE = DataShape(12, 900, 50, 0)


def state_on(device: torch.device, arch: dict[str, Any] | None = None, **settings: Any) -> TrainState:
    more = {"global_batch_size": B, "lr": 1e-3} | settings
    return state_of(SHAPE, device, arch=ARCH | (arch or {}), **more)


def losses_of(state: TrainState, steps: int) -> list[float]:
    found = []
    for step in range(steps):
        train_step(state, batch_of(step, SHAPE, B), total_steps=100)
        found.append(state.sums.reduce()["lm_loss"])
    state.guard.raise_if_bad()
    return found


CONVOLUTIONS: list[dict[str, Any]] = [{"name": "urm", "mlp_conv": "raster2"}, {"mlp_conv": "canvas3x3"}]


@pytest.mark.parametrize("arch", [{}, *CONVOLUTIONS])
def test_a_step_is_that_of_a_cpu(arch: dict[str, Any]) -> None:
    exact = {"arch": {"forward_dtype": "float32"} | arch}
    torch.set_float32_matmul_precision("highest")
    cpu, gpu = (losses_of(state_on(device, **exact), 6) for device in (torch.device("cpu"), CUDA))
    assert gpu == pytest.approx(cpu, rel=2e-3)


@pytest.mark.parametrize(
    "arch", [{}, {"mlp_t": True}, {"name": "hrm", "H_layers": 1}, {"name": "trm_hier6"}, *CONVOLUTIONS]
)
def test_compiled_bfloat16_learns_as_eager_does(arch: dict[str, Any]) -> None:
    eager, compiled = (losses_of(state_on(CUDA, arch=arch, compile=c), 8) for c in (False, True))
    assert compiled == pytest.approx(eager, rel=3e-2)


def test_activations_computed_again_take_less_memory_and_change_little() -> None:
    found = []
    for again in (False, True):
        torch.cuda.reset_peak_memory_stats(CUDA)
        before = torch.cuda.memory_allocated(CUDA)
        losses = losses_of(state_on(CUDA, compile=True, activation_checkpointing=again), 6)
        found.append((losses, torch.cuda.max_memory_allocated(CUDA) - before))
    (plain, held), (again_losses, held_again) = found
    assert again_losses == pytest.approx(plain, rel=3e-2)
    assert held_again < 0.8 * held


def test_no_step_waits_for_the_device_and_none_recompiles() -> None:
    state = state_on(CUDA, compile=True)
    for step in range(4):
        train_step(state, batch_of(step, SHAPE, B), total_steps=100)
    torch.cuda.synchronize()
    torch._dynamo.config.error_on_recompile = True
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(4, 12):
            train_step(state, batch_of(step, SHAPE, B), total_steps=100)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch._dynamo.config.error_on_recompile = False
    state.guard.raise_if_bad()


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    straight = state_on(CUDA)
    wanted = losses_of(straight, 8)
    half = state_on(CUDA)
    losses_of(half, 4)
    path = checkpoint.save_checkpoint(half, tmp_path, checkpoint.CheckpointRecord())
    resumed = state_on(CUDA)
    checkpoint.restore_state(resumed, path)
    found = []
    for step in range(4, 8):
        train_step(resumed, batch_of(step, SHAPE, B), total_steps=100)
        found.append(resumed.sums.reduce()["lm_loss"])
    assert found == pytest.approx(wanted[4:], rel=1e-2)


@pytest.mark.parametrize("kind", ["host", "disk"])
def test_rows_outside_the_gpu_train_as_those_in_it(kind: str, tmp_path: Path) -> None:
    """Equal but for the order in which a GPU adds, which may turn a sign where a sum is almost zero."""
    inside, outside = (
        state_on(CUDA, puzzle_table=where, puzzle_table_folder=str(tmp_path)) for where in ("device", kind)
    )
    assert losses_of(outside, 6) == pytest.approx(losses_of(inside, 6), rel=1e-2)
    assert inside.table is not None and outside.table is not None
    ours, theirs = (table.state_dict()["weights"].cpu() for table in (outside.table, inside.table))
    assert ours.any() and ours.isclose(theirs, rtol=1e-4, atol=1e-6).double().mean() > 0.95


def test_scripts_run_under_torchrun(small_data: Path, tmp_path: Path) -> None:
    """NCCL on one GPU: pretraining, then fine-tuning to a submission."""
    settings = [s for s in SMALL if not s.startswith(("device", "compile", "arch.forward_dtype"))]
    for command in (
        ("pretrain_no_eval.py", "epochs=8", f"checkpoint_path={tmp_path / 'p'}"),
        (
            "eval_arc_k10.py",
            "epochs=4",
            "eval_interval=4",
            f"load_checkpoint={tmp_path / 'p'}",
            f"checkpoint_path={tmp_path / 'e'}",
        ),
    ):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", *command),
                *(f"data_paths=[{small_data}]", "device=cuda", "ema=True", *settings),
            ],
            cwd=ROOT,
            env={**os.environ},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert np.isfinite(read_metrics(tmp_path / "p" / "metrics.jsonl")[-1]["lm_loss"])
    assert (tmp_path / "e" / "submission.json").is_file()
