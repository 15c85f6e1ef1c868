"""Faults, injected: kills, signals, dying ranks, crashes while writing, damage, full disks, bad gradients, leaks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset import storage
from dataset.storage.schema import GRIDS
from tests.builders.programs import start, wait_for
from tests.builders.runs import LONG, everything_in, last, rows_in
from tests.builders.states import assert_equal, batch_of, state_of, tensors, trained
from tests.conftest import ROOT, SMALL, run_script
from training import checkpoint
from training.checkpoint import CheckpointRecord, CheckpointWriter, list_checkpoints, read_record, row_snapshots
from training.checkpoint import writer as checkpoint_writer
from training.metrics.throughput import MACHINE_METRICS
from training.optim.nonfinite import NonFiniteError
from training.step import train_step
from utils import files
from utils.errors import CheckpointError, DataError
from utils.metrics_log import read_metrics

RUN = ("ema=True", "eval_interval=8", "epochs=16", *SMALL)


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until_logged(folder: Path, count: int, process: Any) -> None:
    wait_for(lambda: lines(folder) >= count or process.poll() is not None)


def assert_same_run(folder: Path, straight: Path) -> None:
    """The same last checkpoint bit for bit, and the same log but for rates, each step once."""
    mine, theirs = last(folder), last(straight)
    assert mine.name == theirs.name
    a, b = everything_in(mine), everything_in(theirs)
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    logs = [read_metrics(path / "metrics.jsonl") for path in (folder, straight)]
    for log in logs:
        for line in log:
            for name in MACHINE_METRICS:
                line.pop(name, None)
    assert logs[0] == logs[1]


@pytest.fixture(scope="module")
def straight(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without any fault."""
    folder = tmp_path_factory.mktemp("straight")
    done = run_script("pretrain_no_eval.py", f"data_paths=[{small_data}]", f"checkpoint_path={folder}", *RUN)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.long
@pytest.mark.slow
def test_a_run_killed_anywhere_goes_on_as_if_nothing_had_happened(
    small_data: Path, straight: Path, tmp_path: Path
) -> None:
    """SIGKILL at several moments, among them while a checkpoint is being written; resumed each time."""
    common = ("pretrain_no_eval.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path}", *RUN)
    total = len(read_metrics(straight / "metrics.jsonl"))
    for kill_after in (2, 7, 11, *range(12, 12 + 20 * LONG)):
        process = start(*common, "checkpoint_steps=1")
        wait_until_logged(tmp_path, min(kill_after, total - 1), process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    done = run_script(*common, "checkpoint_steps=1")
    assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stdout
    assert_same_run(tmp_path, straight)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_leaves_a_checkpoint(
    number: signal.Signals, small_data: Path, straight: Path, tmp_path: Path
) -> None:
    common = ("pretrain_no_eval.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path}", *RUN)
    process = start(*common)
    wait_for(lambda: lines(tmp_path) >= 3)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    step = int(last(tmp_path).name.split("_")[1])
    assert f"stopped by {number.name} after step {step}" in said
    assert "Traceback" not in said
    assert run_script(*common).returncode == 0
    assert_same_run(tmp_path, straight)


@pytest.mark.slow
def test_a_signal_to_torchrun_reaches_all_ranks_at_one_step(small_data: Path, tmp_path: Path) -> None:
    arguments = ("pretrain_no_eval.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path}", *RUN, "epochs=800")
    process = start(*arguments, ranks=2)
    wait_for(lambda: lines(tmp_path) >= 3)
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "stopped by SIGTERM after step" in said
    assert not read_record(last(tmp_path)).ends_interval


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_dying_rank_makes_no_difference(small_data: Path, tmp_path: Path) -> None:
    """torchrun restarts the group, which goes on from the last checkpoint."""
    common = ("pretrain_no_eval.py", f"data_paths=[{small_data}]", *RUN)
    undisturbed = tmp_path / "undisturbed"
    assert run_script(*common, f"checkpoint_path={undisturbed}", ranks=2).returncode == 0
    folder = tmp_path / "disturbed"
    process = start(*common, f"checkpoint_path={folder}", "checkpoint_steps=2", ranks=2, more=("--max-restarts=2",))
    wait_for(lambda: len(list_checkpoints(folder)) >= 1)
    ranks = [
        pid for pid in children(process.pid) if b"pretrain_no_eval.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    out, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert out.count("resumed from") == 1
    assert_same_run(folder, undisturbed)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks(small_data: Path, straight: Path, tmp_path: Path) -> None:
    """Two ranks for the first half, one for the second: the losses of one rank throughout, to float32 rounding."""
    common = ("pretrain_no_eval.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path}", *RUN)
    assert run_script(*common, "epochs=8", ranks=2).returncode == 0
    assert run_script(*common).returncode == 0
    losses = [[line["lm_loss"] for line in read_metrics(path / "metrics.jsonl")] for path in (tmp_path, straight)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    tables = [rows_in(last(path)) for path in (tmp_path, straight)]
    assert (
        torch.isclose(*tables, rtol=1e-4, atol=1e-5).double().mean() > 0.98
    )  # a sign may flip where a sum is almost 0


@pytest.mark.slow
def test_two_nodes_over_loopback(small_data: Path, straight: Path, tmp_path: Path) -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    agents = []
    for node in range(2):
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}"),
            *("--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}", "--rdzv_id=7"),
            *("pretrain_no_eval.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path}", *RUN),
        ]
        agents.append(
            subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
            )
        )
    for agent in agents:
        _, said = agent.communicate(timeout=200)
        assert agent.returncode == 0, said
    losses = [[line["lm_loss"] for line in read_metrics(path / "metrics.jsonl")] for path in (tmp_path, straight)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


class Crash(BaseException):
    """The end of the process, for what a test can survive."""


CRASHABLE = [
    *((os, "replace"), (os, "fsync"), (os, "link"), (shutil, "rmtree"), (files, "sha256")),
    *((checkpoint_writer, "save_file"), (row_snapshots, "save_file")),
]


def crashing_after(n: int, patched: pytest.MonkeyPatch) -> None:
    """Lets only the first n calls that touch the disk through."""
    left = [n]

    def crashing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return real(*arguments, **options)

        return call

    for module, name in CRASHABLE:
        patched.setattr(module, name, crashing(getattr(module, name)))


@pytest.mark.parametrize("kind", ["device", "disk"])
def test_a_crash_at_any_point_of_writing_leaves_a_checkpoint_to_use(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th call that touches the disk never returns, for every n until the checkpoint is whole."""
    first, second = trained(1), trained(2)
    for n in range(200):
        folder = tmp_path / str(n)
        state = trained(1, puzzle_table=kind)
        checkpoint.save_checkpoint(state, folder, checkpoint.CheckpointRecord())
        train_step(state, batch_of(1), total_steps=10)  # what it writes next shares files with what it wrote
        with monkeypatch.context() as patched:
            crashing_after(n, patched)
            try:
                checkpoint.save_checkpoint(state, folder, checkpoint.CheckpointRecord())
                crashed = False
            except Crash:
                crashed = True
        path = last(folder)
        restored = state_of()
        checkpoint.restore_state(restored, path)
        assert_equal(restored, {"step_1": first, "step_2": second}[path.name])
        CheckpointWriter(folder).close()  # the next start sweeps up what the crash left
        assert {p.name for p in folder.iterdir()} <= {"step_1", "step_2"}
        if not crashed:
            assert n > 10
            assert path.name == "step_2"
            return
    raise AssertionError("writing never ended")


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "record"])
def test_damage_is_found_and_the_checkpoint_before_it_used(damage: str, tmp_path: Path) -> None:
    first, second = trained(1), trained(2)
    checkpoint.save_checkpoint(first, tmp_path, checkpoint.CheckpointRecord(data=["one"]))
    path = checkpoint.save_checkpoint(second, tmp_path, checkpoint.CheckpointRecord(data=["one"]))
    file = path / ("checkpoint.json" if damage == "record" else "optimizer.safetensors")
    whole = bytearray(file.read_bytes())
    if damage == "flip":
        whole[-1] ^= 4
        file.write_bytes(whole)
    elif damage == "remove":
        file.unlink()
    else:
        file.write_bytes(whole[:-7])
    state = state_of()
    said = str(checkpoint.start_state(state, tmp_path, {"data": ["one"], "puzzles": None}))
    assert said.startswith("warning: ") and str(file.parent) in said
    assert "resumed from" in said and state.step == 1
    assert_equal(state, first)


def test_a_run_never_begins_anew_by_itself(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(trained(1), tmp_path, checkpoint.CheckpointRecord(data=["one"]))
    (path / "network.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        checkpoint.start_state(state_of(), tmp_path, {"data": ["one"], "puzzles": None})


def test_a_damaged_data_file_is_found(small_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(small_data, folder)
    before = storage.fingerprints(folder)
    assert before == storage.fingerprints(small_data)
    file = folder / GRIDS
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"grids\.npy"):
        storage.fingerprints(folder)
    file.write_bytes(data[:-1])
    with pytest.raises(DataError, match=r"grids\.npy"):
        storage.fingerprints(folder, verify=False)


def test_a_full_disk_is_said_and_earlier_checkpoints_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, writer = trained(1), CheckpointWriter(tmp_path)
    writer.save(state, CheckpointRecord(), ends_interval=False)
    writer.wait()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    train_step(state, batch_of(1), total_steps=10)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_writer, "save_file", full)
        writer.save(state, CheckpointRecord(), ends_interval=False)
        with pytest.raises(OSError, match="No space left"):
            writer.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["step_1"]
    writer.save(state, CheckpointRecord(), ends_interval=False)  # and it can go on when there is room again
    writer.close()
    assert last(tmp_path).name == "step_2"


def test_passing_checkpoints_are_pruned_and_those_of_intervals_stay(tmp_path: Path) -> None:
    state, writer = trained(1), CheckpointWriter(tmp_path, keep_last=2)
    for step in range(1, 8):
        state.step = step
        writer.save(state, CheckpointRecord(), ends_interval=step in (2, 5))
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_2", "step_5", "step_6", "step_7"]


def test_a_checkpoint_is_that_of_its_moment(tmp_path: Path) -> None:
    """Training goes on while it is written, and changes nothing of it."""
    state, writer = trained(2), CheckpointWriter(tmp_path)
    copy = {name: value.clone() for name, value in tensors(state).items()}
    path = writer.save(state, CheckpointRecord(), ends_interval=False)
    for step in range(2, 6):
        train_step(state, batch_of(step), total_steps=10)
    writer.close()
    restored = state_of()
    checkpoint.restore_state(restored, path)
    for name, value in tensors(restored).items():
        assert torch.equal(value, copy[name]), name


def poisoned(state: Any) -> None:
    """Makes the next step's loss not a number, as a rate too high does in the end."""
    (carry,) = state.carries.buckets[0].carries
    carry.latents[0][0] = float("nan")
    carry.halted[:] = False


@pytest.mark.parametrize(
    ("mode", "optimizer"), [("stop", "adam_atan2"), ("skip", "adam_atan2"), ("stop", "normuon"), ("skip", "normuon")]
)
def test_a_bad_step_touches_nothing(mode: str, optimizer: str, tmp_path: Path) -> None:
    state = trained(3, on_nonfinite=mode, optimizer=optimizer)
    before = {k: v.clone() for k, v in tensors(state).items() if k.split("/")[0] not in ("carry", "metrics")}
    poisoned(state)
    train_step(state, batch_of(3), total_steps=10)
    after = tensors(state)
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    train_step(state, batch_of(4), total_steps=10)
    moved = [name for name, value in before.items() if not torch.equal(tensors(state)[name], value)]
    if mode == "skip":
        assert moved
        assert all(value.isfinite().all() for value in tensors(state).values() if value.is_floating_point())
        assert state.sums.reduce()["lm_loss"] > 0
        checkpoint.save_checkpoint(state, tmp_path, checkpoint.CheckpointRecord())
    else:
        assert not moved
        with pytest.raises(NonFiniteError, match="step 4 is not finite"):
            checkpoint.save_checkpoint(state, tmp_path, checkpoint.CheckpointRecord())
        assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_on_the_disk_when_an_evaluator_fails(small_data: Path, tmp_path: Path) -> None:
    """The run folder cannot take the evaluation's: its name is a file."""
    common = (
        *(
            "eval_arc_k10.py",
            f"data_paths=[{small_data}]",
            f"checkpoint_path={tmp_path}",
            "epochs=4",
            "eval_interval=4",
        ),
        *("finetune_on=test_tasks", "puzzle_rows=zero", *SMALL),
    )
    steps = run_script(*common, "evaluators=[]")
    assert steps.returncode == 0
    step = int(last(tmp_path).name.split("_")[1])
    shutil.rmtree(last(tmp_path))
    (tmp_path / f"evaluation_step_{step}").write_text("in the way")
    done = run_script(*common)
    assert done.returncode == 2 and "evaluation_step" in done.stderr and "Traceback" not in done.stderr
    assert last(tmp_path).name == f"step_{step}"
    (tmp_path / f"evaluation_step_{step}").unlink()
    done = run_script(*common)  # the evaluation that was cut off is made up for
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / f"evaluation_step_{step}" / "scores.json").read_text())["ARC/test_inputs"] == 4


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.long
def test_memory_and_file_handles_do_not_grow(tmp_path: Path) -> None:
    state, writer = trained(20), CheckpointWriter(tmp_path)

    def go_on(steps: int) -> Iterator[None]:
        for step in range(steps):
            train_step(state, batch_of(step), total_steps=10)
            if step % 50 == 0:
                writer.save(state, CheckpointRecord(), ends_interval=False)
                yield

    for _ in go_on(200):
        pass
    before, handles = resident(), len(os.listdir("/proc/self/fd"))
    for _ in go_on(2000 if LONG else 400):
        pass
    writer.close()
    assert resident() - before < 16e6
    assert len(os.listdir("/proc/self/fd")) <= handles
