"""training/launch/dry_run.py through both scripts: what is said, and that nothing is written."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import SMALL, run_script


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_says_what_a_run_does_and_writes_nothing(small_data: Path, tmp_path: Path) -> None:
    """Before anything is there, then where a run would go on, then where it would be refused."""
    here = tmp_path / "run"
    command = ["pretrain_no_eval.py", f"data_paths=[{small_data}]", f"checkpoint_path={here}", *SMALL, "ema=true"]
    done = run_script(*command, "epochs=8", "dry_run=true")
    assert done.returncode == 0, done.stderr
    planned = re.search(r"steps +(\d+) of (\d+), 1 interval", done.stdout)
    assert planned and planned[1] == planned[2]
    assert "fresh weights" in done.stdout and f"{here} would be made" in done.stdout
    assert re.search(r"memory +\d+\.\d+ GB per device", done.stdout)
    assert re.search(r"time +\S+ to \S+ h, an estimate", done.stdout)
    said_disk = re.search(r"disk +(\S+) GB a checkpoint, at most 4 at once", done.stdout)
    assert said_disk and not here.exists()

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
    assert refused.returncode == 2 and "seed=0 there, 1 here" in refused.stderr

    tuning = ["eval_arc_k10.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path / 'eval'}", *SMALL]
    done = run_script(*tuning, f"load_checkpoint={here}", "epochs=4", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "puzzle rows set to the mean" in done.stdout and "would be made" in done.stdout
    assert contents(tmp_path) == before
