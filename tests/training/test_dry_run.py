"""training/launch/dry_run.py: what it says, compared with the run itself, and that nothing is written."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dataset.storage import open_split
from models.arch import ArchConfig
from tests.builders.states import RECURRENT, kept_bytes
from tests.conftest import SMALL, run_script
from training.config import PretrainConfig
from training.data import StepPlan
from training.launch.dry_run import REACHED, describe_dry_run
from training.launch.run import Run, open_data, open_run, start_run
from training.loop import train
from training.state import TrainState
from training.step import train_step
from utils.errors import SettingError

UNITS, ROUNDING = {"MB": 1e6, "GB": 1e9}, 0.005e6


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def opened(data: Path, folder: Path, **settings: Any) -> tuple[Run, Any, StepPlan, TrainState]:
    """A run up to its train state, in this process."""
    config = PretrainConfig(
        data_paths=[str(data)],
        checkpoint_path=str(folder),
        global_batch_size=8,
        epochs=16,
        eval_interval=16,
        ema=True,
        compile=False,
        device="cpu",
        **{"arch": RECURRENT} | settings,
    )
    run = open_run(config)
    splits = open_data(run, [open_split(data, "train")])
    return run, splits, StepPlan.from_settings(config, splits), TrainState(config, splits.shape, run.device)


def test_a_run_says_at_its_start_that_cores_are_busy(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr("training.prepare.threads.busy_cores", lambda *_, **__: 1.5)
    monkeypatch.setattr("training.prepare.threads.STAT", Path(__file__))  # a file that is there
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    opened(small_data, tmp_path)
    assert "other programs use 1.5 of " in capsys.readouterr().out
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    opened(small_data, tmp_path)
    assert "other programs" not in capsys.readouterr().out


def said_bytes(pattern: str, said: str) -> float:
    """A size that was said, in bytes."""
    match = re.search(pattern.replace("SIZE", r"([\d.,]+) (MB|GB)"), said)
    assert match is not None, said
    return float(match[1].replace(",", "")) * UNITS[match[2]]


@pytest.mark.parametrize(
    "settings", [{}, {"canvases": [(4, 4), (6, 6)], "micro_batch_size": 2}, {"ema_puzzle_rows": True}]
)
def test_the_size_that_is_said_is_that_of_the_checkpoint(
    settings: dict[str, Any], small_data: Path, tmp_path: Path
) -> None:
    run, data, plan, state = opened(small_data, tmp_path / "run", **settings)
    said = describe_dry_run(run, state, plan)
    assert not run.directory.exists()
    start_run(run, state)
    (step,) = train(state, data, plan, run.metrics, run.directory, run.record)
    written = sum(path.stat().st_size for path in (run.directory / f"step_{step}").glob("*.safetensors"))
    assert said_bytes("disk +SIZE a checkpoint, at most 4 at once", said) == pytest.approx(written, rel=0.05)


@pytest.mark.parametrize("optimizer", ["adam_atan2", "muon"])
def test_the_memory_that_is_said_is_what_a_step_holds(optimizer: str, small_data: Path, tmp_path: Path) -> None:
    run, data, plan, state = opened(small_data, tmp_path / "run", optimizer=optimizer)
    said = describe_dry_run(run, state, plan)
    train_step(state, next(data.batches(state.carries, 0, 0)), total_steps=10)
    assert state.table is not None
    rows = state.table.num_bytes()
    parts = state.state_dict() | {"puzzle_table": state.table.state_dict()}
    held = {part: sum(t.numel() * t.element_size() for t in tensors.values()) for part, tensors in parts.items()}
    least = sum(held.values()) + held["network"] + held["carry"]  # gradients, and the carry after the step
    total = said_bytes("memory +SIZE per device", said)
    assert least < total < 1.5 * (least + kept_bytes(state))
    assert said_bytes("weights SIZE", said) == pytest.approx(2 * held["network"], abs=ROUNDING)
    assert said_bytes("moments SIZE", said) == pytest.approx(held["optimizer"], abs=ROUNDING)
    assert said_bytes("host +SIZE", said) == pytest.approx(total + state.num_bytes() + rows, abs=2 * ROUNDING)


@pytest.mark.parametrize("optimizer", ["adam_atan2", "muon"])
def test_the_operations_that_are_said_are_those_of_the_steps(optimizer: str, small_data: Path, tmp_path: Path) -> None:
    """By PyTorch's own count, which does not know the fused kernel of a CPU; hours are operations over the speed."""
    run, data, plan, state = opened(small_data, tmp_path / "run", optimizer=optimizer)
    said = describe_dry_run(run, state, plan)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        train_step(state, next(data.batches(state.carries, 0, 0)), total_steps=10)
    numbers = re.search(r"time +(\S+) to (\S+) h, .*: (\S+) PFLOP per device at .* product's (\S+) TFLOP/s", said)
    assert numbers is not None, said
    least, most, peta, tera = (float(number) for number in numbers.groups())
    assert 1e15 * peta == pytest.approx(plan.total_steps * counter.get_total_flops(), rel=0.05)
    assert [least, most] == pytest.approx([1e3 * peta / (part * tera) / 3600 for part in REACHED], rel=0.05)
    assert torch.isfinite(state.network.lm_head.weight).all()


def test_a_dry_run_says_what_a_run_does_and_writes_nothing(small_data: Path, tmp_path: Path) -> None:
    """Before anything is there, then where a run would go on, then where it would be refused."""
    here = tmp_path / "run"
    command = ["pretrain_no_eval.py", f"data_paths=[{small_data}]", f"checkpoint_path={here}", *SMALL, "ema=true"]
    done = run_script(*command, "epochs=8", "dry_run=true")
    assert done.returncode == 0, done.stderr
    planned = re.search(r"steps +(\d+) of (\d+), 1 interval", done.stdout)
    assert planned and planned[1] == planned[2]
    assert "fresh weights" in done.stdout and f"{here} would be made" in done.stdout
    assert not here.exists()

    done = run_script(*command, "epochs=8")
    assert done.returncode == 0, done.stderr
    before = contents(tmp_path)
    made = int(planned[1])
    assert (here / f"step_{made}").is_dir()

    done = run_script(*command, "epochs=16", "eval_interval=8", "dry_run=true", ranks=2)
    assert done.returncode == 0, done.stderr
    planned = re.search(r"steps +(\d+) of (\d+), 2 interval\(s\), 8 examples each on 2 rank", done.stdout)
    assert planned and int(planned[1]) == int(planned[2]) - made
    assert f"resumed from {here / f'step_{made}'}" in done.stdout
    assert "1 checkpoint(s) stay, config.yaml, versions.json, manifests.json replaced" in done.stdout

    refused = run_script(*command, "epochs=8", "seed=1", "dry_run=true")
    assert refused.returncode == 2 and "seed" in refused.stderr

    tuning = ["eval_arc_k10.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path / 'eval'}", *SMALL]
    done = run_script(*tuning, f"load_checkpoint={here}", "epochs=4", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "puzzle rows set to the mean" in done.stdout and "would be made" in done.stdout
    assert contents(tmp_path) == before


def test_a_plan_for_other_hardware(small_data: Path, tmp_path: Path) -> None:
    """By arithmetic from the plan for the device here, and from the data sheet's numbers."""
    arch = RECURRENT | {"forward_dtype": "bfloat16"}
    run, _, plan, state = opened(small_data, tmp_path / "run", arch=arch)
    here = describe_dry_run(run, state, plan)
    said = {}
    for gpus in ("H100", "2 x H100", "4 x L4", "NVIDIA A100"):
        run.config = run.config.model_copy(update={"dry_run_hardware": gpus})
        said[gpus] = describe_dry_run(run, state, plan)

    def peta(text: str) -> float:
        match = re.search(r"(\S+) PFLOP per device", text)
        assert match is not None
        return float(match[1])

    assert peta(said["H100"]) == peta(here) and peta(said["2 x H100"]) == pytest.approx(peta(here) / 2, rel=0.01)
    times = re.search(r"time +(\S+) to (\S+) h on 4 x L4, .* of the 121 TFLOP/s of its data sheet", said["4 x L4"])
    assert times is not None
    hours = [1e15 * peta(said["4 x L4"]) / (part * 121e12) / 3600 for part in REACHED]
    assert [float(value) for value in times.groups()] == pytest.approx(hours, rel=0.05)
    assert "8 examples each on 2 rank(s)" in said["2 x H100"]
    assert "; the device has 80.00 GB" in said["H100"] and "; the device has 24.00 GB" in said["4 x L4"]
    assert "the device has" not in said["NVIDIA A100"]  # 40 or 80
    assert said_bytes("carry SIZE", said["2 x H100"]) == pytest.approx(
        said_bytes("carry SIZE", said["H100"]) / 2, abs=ROUNDING
    )
    for gpus, why in (("8 x abacus", "is not known"), ("3 x H100", "does not divide"), ("0 x H100", "is not known")):
        run.config = run.config.model_copy(update={"dry_run_hardware": gpus})
        with pytest.raises(SettingError, match=why):
            describe_dry_run(run, state, plan)
    run.config = run.config.model_copy(update={"dry_run_hardware": "H100", "arch": ArchConfig(**RECURRENT)})
    with pytest.raises(SettingError, match="bfloat16 alone"):
        describe_dry_run(run, state, plan)


def test_rows_that_no_visit_trains_are_warned_of(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arch = RECURRENT | {"puzzle_embedding": "composed", "puzzle_emb_len": 0, "augmentation_rank": 4}
    for fresh in (False, True):
        opened(small_data, tmp_path / "run", arch=arch, fresh_augmentations=fresh)
        said = capsys.readouterr().out
        assert ("warning: with fresh_augmentations=true no visit trains the rows" in said) == fresh


@pytest.mark.parametrize("kind", ["device", "host", "disk"])
def test_a_table_of_any_size_is_planned_and_one_that_fits_is_recommended(
    kind: str, small_data: Path, tmp_path: Path
) -> None:
    """A thousand million puzzles, 128 GB at width 32; nothing is allocated or written."""
    run, data, plan, _ = opened(small_data, tmp_path / "run", dry_run=True, puzzle_table=kind)
    shape = replace(data.shape, num_puzzle_identifiers=10**9)
    said = describe_dry_run(run, TrainState(run.config, shape, run.device, run.directory), plan)
    assert ("they do not fit, set puzzle_table=disk, or arch.puzzle_embedding=composed" in said) == (kind != "disk")
    assert said_bytes("would take: device SIZE", said) == said_bytes("host SIZE of", said) == pytest.approx(128e9)
    # A page for each row that the run can visit, and each of them twice in a checkpoint.
    visited = plan.total_steps * 8
    assert said_bytes("disk SIZE of", said) == pytest.approx(visited * 4096, abs=ROUNDING)
    assert f"at most {visited:,} are visited; recommended: puzzle_table=disk" in said
    assert ("not enough for one" in said) == (kind == "device")  # of which a checkpoint has a whole copy
    if kind == "disk":
        assert said_bytes("puzzle rows SIZE", said) == 0
        assert said_bytes("disk +SIZE a checkpoint", said) < 5e6
    assert not run.directory.exists()


def test_no_table_is_recommended_that_does_not_fit(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk of 100 kB, and rows of which each step visits new ones."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**5))
    run, data, plan, _ = opened(small_data, tmp_path / "run", dry_run=True, puzzle_table="disk")
    shape = replace(data.shape, num_puzzle_identifiers=10**9)
    said = describe_dry_run(run, TrainState(run.config, shape, run.device, run.directory), plan)
    assert "they do not fit, set arch.puzzle_embedding=composed for a row per task, since none of them fits\n" in said
    assert "recommended: arch.puzzle_embedding=composed" in said


def test_the_residual_rows_count_where_a_table_is_recommended(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.slots.tables.kinds.memory_of", lambda device: 1e6)
    arch = RECURRENT | {"puzzle_embedding": "composed", "puzzle_emb_len": 0, "augmentation_rank": 4}
    for rows, kind in ((10**3, "device"), (10**5, "disk")):  # 17 kB and 1.6 MB
        run, data, plan, _ = opened(small_data, tmp_path / "run", dry_run=True, arch=arch)
        shape = replace(data.shape, num_puzzle_identifiers=rows)
        said = describe_dry_run(run, TrainState(run.config, shape, run.device, run.directory), plan)
        assert f"9 of width 32 and {rows:,} of width 4, puzzle_table=device" in said
        assert f"recommended: puzzle_table={kind}" in said
