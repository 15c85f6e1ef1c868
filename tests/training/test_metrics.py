"""training/metrics/: what a log line says, and that a skipped step does not pass in silence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders.states import BATCH, batch_of, state_of
from training.checkpoint import CheckpointWriter
from training.metrics import cost_model
from training.metrics.cost_model import Workload
from training.metrics.reporter import MetricsReporter
from training.metrics.sums import MetricSums
from training.metrics.throughput import MACHINE_METRICS, Throughput
from training.state import TrainState
from training.step import train_step
from utils.metrics_log import MetricsLog, read_metrics
from utils.progress import Progress


def poison(state: TrainState) -> None:
    """Makes the next step's loss not a number."""
    (carry,) = state.carries.buckets[0].carries
    carry.latents[0][0] = float("nan")
    carry.halted[:] = False


def logged(folder: Path, state: TrainState, steps: int, poisoned: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """Trains with a reporter; returns the lines of the log."""
    log, writer = MetricsLog(folder / "metrics.jsonl"), CheckpointWriter(folder)
    with Progress(steps, "train", enabled=False) as progress, log:
        reporter = MetricsReporter(state, log, progress, steps)
        reporter.restart()
        for step, batch in enumerate(reporter.timed([batch_of(step) for step in range(steps)]), start=1):
            if step in poisoned:
                poison(state)
            train_step(state, batch, total_steps=steps)
            reporter.end_step(batch, writer)
    return read_metrics(folder / "metrics.jsonl")


def test_a_line_has_what_a_trainer_looks_for(tmp_path: Path) -> None:
    lines = logged(tmp_path, state_of(log_every=4), 10)
    assert [line["step"] for line in lines] == [4, 8, 10]
    for line in lines:
        assert {"lm_loss", "exact_accuracy", "lr", *MACHINE_METRICS} - {"mfu"} <= line.keys()
        assert line["skipped_steps"] == 0 and line["grad_norm"] > 0
        assert 0 < line.get("mfu", 1) <= 1 and 0 <= line["data_wait_fraction"] < 1 and line["peak_memory_gb"] > 0.01


def test_the_gradient_norm_is_the_mean_over_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    state, norms = state_of(), []
    assert state.optimizer is not None
    gradients = state.optimizer.gradients

    def watched() -> list[torch.Tensor]:
        found = gradients()
        norms.append(float(torch.cat([gradient.flatten() for gradient in found]).norm()))
        return found

    monkeypatch.setattr(state.optimizer, "gradients", watched)
    for step in range(3):
        train_step(state, batch_of(step), total_steps=10)
    assert state.sums.reduce()["grad_norm"] == pytest.approx(sum(norms) / 3, rel=1e-5)


def test_a_skipped_step_is_logged_and_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Means are over the steps that were made."""
    every_step = logged(tmp_path / "each", state_of(log_every=1, on_nonfinite="skip"), 8, poisoned=(6, 7))
    capsys.readouterr()
    lines = logged(tmp_path, state_of(log_every=4, on_nonfinite="skip"), 8, poisoned=(6, 7))
    assert [line["skipped_steps"] for line in lines] == [0, 2]
    for name in ("lm_loss", "grad_norm"):
        made = [line[name] for line in every_step if not line["skipped_steps"]]
        assert len(made) == 6 and all(math.isfinite(value) and value > 0 for value in made)
        assert [line[name] for line in lines] == pytest.approx([sum(made[:4]) / 4, sum(made[4:]) / 2], rel=1e-5)
    said = capsys.readouterr().out
    assert said.count("warning") == 1 and "2 step(s) up to step 8" in said and "on_nonfinite=skip" in said


def test_sums_go_on_from_their_state() -> None:
    """Mean loss, gradient norm and skipped steps, and those of a state without counts, as older ones are."""
    yes, no = torch.tensor(True), torch.tensor(False)
    metrics, norms = torch.tensor([2.0, 1, 1, 1, 4, 8, 2]), torch.tensor([3.0, 4.0])
    straight, first, resumed, old = (MetricSums(2) for _ in range(4))
    straight.add(metrics, norms, yes)
    straight.add(metrics * math.nan, norms * math.nan, no)
    first.add(metrics, norms, yes)
    saved = first.state_dict()
    for sums, state in ((resumed, saved), (old, {name: saved[name] for name in ("sums", "steps")})):
        sums.load_state_dict(state, torch.device("cpu"))
        sums.add(metrics * math.nan, norms * math.nan, no)
    wanted = straight.reduce()
    assert wanted["grad_norm"] == 5 and wanted["skipped_steps"] == 1 and wanted["lm_loss"] == 4
    assert resumed.reduce() == wanted
    assert old.reduce() == wanted | {"grad_norm": 0}
    assert straight.reduce() == {}


def test_a_frozen_network_has_no_gradient_norm() -> None:
    state = state_of(freeze_weights=True)
    train_step(state, batch_of(0), total_steps=10)
    assert state.sums.reduce()["grad_norm"] == 0


def test_speeds_are_over_the_time_since_the_last_line() -> None:
    now = 0.0

    def clock() -> float:
        return now

    throughput = Throughput(clock)
    now = 100.0
    throughput.restart()

    def batches() -> Any:
        nonlocal now
        for _ in range(4):
            now += 1  # the reader
            yield object()

    for _ in throughput.timed(batches()):
        now += 3  # the step
        throughput.add(examples=64, flop=1e12)
    assert throughput.measure(1e12) == {"examples_per_second": 16, "data_wait_fraction": 0.25, "mfu": 0.25}
    assert "mfu" not in throughput.measure(None)
    assert "mfu" not in throughput.measure(1e11)  # a busy machine's peak was measured too low


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("Tesla T4", None),
        ("NVIDIA RTX A1000", None),
    ],
)
def test_the_peak_of_a_gpu_is_looked_up(name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    gpu = torch.device("cuda", 0)
    assert cost_model.peak_flops(gpu, torch.bfloat16) == peak
    assert cost_model.peak_flops(gpu, torch.float32) is None


def test_the_utilisation_counts_the_step_s_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_model, "peak_flops", lambda device, dtype: 1e13)
    state = state_of(log_every=2)
    (line,) = logged(tmp_path, state, 2)
    flop = cost_model.step_flop(state.config.arch, [Workload(16, BATCH)])
    assert line["mfu"] == pytest.approx(flop * line["examples_per_second"] / BATCH / 1e13, rel=1e-6)


def test_a_line_without_halted_examples_says_nothing_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = state_of(log_every=1)
    with Progress(1, "train", enabled=True) as progress:
        reporter = MetricsReporter(state, MetricsLog(None), progress, 1)
        reporter.restart()
        train_step(state, batch_of(0), total_steps=9)  # no slot has halted yet
        reporter.end_step(batch_of(0), CheckpointWriter(tmp_path))
    said = capsys.readouterr().err
    assert "loss" in said and "nan" not in said and "exact" not in said
