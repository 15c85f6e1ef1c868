"""examples/slurm: the job's script as Slurm runs it, with stand-ins for srun and scontrol, on two CPU ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from torch.distributed.launcher.api import LaunchConfig

from tests.conftest import ROOT, SMALL
from utils.metrics_log import read_metrics

SCRIPT = ROOT / "examples" / "slurm" / "pretrain.sbatch"


def stand_ins(folder: Path) -> Path:
    """srun runs its command here and hands SIGTERM on, as Slurm's does; scontrol says what it was told."""
    folder.mkdir()
    for name, lines in {
        "srun": [
            *('while [[ "$1" == --* ]]; do shift; done', '"$@" & child=$!', "trap 'kill -TERM $child' TERM"),
            *("wait $child", "s=$?", "while kill -0 $child 2>/dev/null; do wait $child; s=$?; done", "exit $s"),
        ],
        "scontrol": [
            f'if [[ "$1" == show ]]; then echo localhost; else echo "$@" >> {folder / "told"}; fi',
        ],
        "torchrun": [f'exec {sys.executable} -m torch.distributed.run "$@"'],
    }.items():
        (folder / name).write_text("\n".join(["#!/bin/bash", *lines]) + "\n")
        (folder / name).chmod(0o755)
    return folder


def start(folder: Path, data: Path, port: int, **more: str) -> subprocess.Popen[str]:
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "here", "RANKS": "2", "PORT": str(port)}
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "LOGS": str(folder / "logs")}
    settings = (f"data_paths=[{data}]", f"checkpoint_path={folder / 'run'}", "epochs=100000", "eval_interval=100000")
    return subprocess.Popen(
        ["bash", str(SCRIPT), *settings, *SMALL],
        cwd=ROOT,
        env=os.environ | slurm | quiet | more | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_job_whose_time_is_up_saves_is_requeued_and_goes_on(small_data: Path, tmp_path: Path) -> None:
    stand_ins(tmp_path / "bin")
    job = start(tmp_path, small_data, 29471)
    metrics = tmp_path / "run" / "metrics.jsonl"
    until = time.monotonic() + 120
    while not (metrics.exists() and len(read_metrics(metrics)) >= 3):
        assert job.poll() is None and time.monotonic() < until, job.communicate()[0]
        time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=120)
    assert (tmp_path / "bin" / "told").read_text() == "requeue 7\n", said
    (saved,) = (tmp_path / "run").glob("step_*")
    assert int(saved.name.split("_")[1]) >= 3
    assert "[default0]:" in said and "[default1]:" not in said
    files = sorted(path.name for path in (tmp_path / "logs").rglob("std*.log"))
    assert files == ["stderr.log"] * 2 + ["stdout.log"] * 2

    again = start(tmp_path, small_data, 29472)  # as Slurm starts it when it is requeued
    until = time.monotonic() + 120
    while len(read_metrics(metrics)) <= int(saved.name.split("_")[1]):
        assert again.poll() is None and time.monotonic() < until, again.communicate()[0]
        time.sleep(0.2)
    again.send_signal(signal.SIGTERM)
    said, _ = again.communicate(timeout=120)
    assert f"resumed from {saved}" in said


def test_every_pytorch_takes_the_options_and_the_ranks_have_time_to_save(tmp_path: Path) -> None:
    """The time to save is a variable: a PyTorch before 2.12 would refuse an option for it."""
    torchrun = stand_ins(tmp_path / "bin") / "torchrun"
    torchrun.write_text('#!/bin/bash\necho "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT" "$@"\n')
    said, _ = start(tmp_path, tmp_path, 29474).communicate(timeout=60)
    seconds, *words = said.split()
    assert seconds == "240"
    options = {word.split("=")[0] for word in words[: words.index("pretrain_no_eval.py")]}
    assert options == {
        *("--nnodes", "--nproc-per-node", "--max-restarts", "--rdzv-backend", "--rdzv-id", "--rdzv-endpoint"),
        *("--log-dir", "--tee", "--local-ranks-filter"),
    }
    with mock.patch.dict(os.environ, TORCH_ELASTIC_SHUTDOWN_TIMEOUT=seconds):
        config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=1)
    if hasattr(config, "shutdown_timeout"):  # from 2.12 on
        assert config.shutdown_timeout == 240


@pytest.mark.slow
def test_a_job_that_fails_is_not_requeued(tmp_path: Path) -> None:
    stand_ins(tmp_path / "bin")
    job = start(tmp_path, tmp_path / "nowhere", 29473, RESTARTS="0", RANKS="1")
    said, _ = job.communicate(timeout=120)
    assert job.returncode not in (0, None)
    assert "nowhere is not a data set folder" in said
    assert not (tmp_path / "bin" / "told").exists()
