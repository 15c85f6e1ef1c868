from __future__ import annotations

import errno
import json
import random
import socket
import subprocess
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
import yaml

from tests.builders.programs import Running, run_script, wait_for
from tests.conftest import SMALL
from utils import run_directory
from utils.errors import InputError
from utils.metrics_log import MetricsLog, read_metrics
from utils.run_directory import open_run_directory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "metrics.jsonl"


def steps(path: Path) -> list[int]:
    return [record["step"] for record in read_metrics(path)]


def test_each_line_is_in_the_file_when_write_returns(path: Path) -> None:
    with MetricsLog(path) as log:
        log.write(1, {"loss": 0.5})
        log.write(2, {"loss": 0.25, "pass@2": 1})
        assert path.read_text() == '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25, "pass@2": 1}\n'


def test_numbers_of_other_libraries_and_what_is_not_finite(path: Path) -> None:
    with MetricsLog(path) as log:
        log.write(
            np.int64(3),  # type: ignore[arg-type]
            {
                "a": np.float32(0.5),
                "b": torch.tensor(2),
                "c": float("nan"),
                "d": [torch.tensor(float("inf"))],
                "e": {"f": np.arange(2), "g": None, "h": "text", "i": Path("x")},
            },
        )
    assert read_metrics(path) == [
        {"step": 3, "a": 0.5, "b": 2, "c": None, "d": [None], "e": {"f": [0, 1], "g": None, "h": "text", "i": "x"}}
    ]


def test_a_resumed_run_logs_each_step_once(path: Path) -> None:
    with MetricsLog(path) as log:
        for step in range(1, 6):
            log.write(step, {"loss": 1 / step})
    with MetricsLog(path) as log:
        log.truncate_after(3)
        for step in (4, 5, 6):
            log.write(step, {"loss": 1 / step})
    assert read_metrics(path) == [{"step": step, "loss": 1 / step} for step in range(1, 7)]
    assert [file.name for file in path.parent.iterdir()] == ["metrics.jsonl"]


def test_truncating_to_the_start_or_past_the_end(path: Path) -> None:
    with MetricsLog(path) as log:
        log.truncate_after(0)
        log.write(1, {})
        log.write(2, {})
        log.truncate_after(7)
        assert steps(path) == [1, 2]
        log.truncate_after(0)
        assert steps(path) == []


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b'{"step": 3}', b"{", b"\xff\xfe", b"\0\0\0\0"])
def test_a_torn_last_line_is_left_out_and_then_dropped(path: Path, torn: bytes) -> None:
    with MetricsLog(path) as log:
        log.write(1, {})
        log.write(2, {})
    with path.open("ab") as file:
        file.write(torn)
    assert steps(path) in ([1, 2], [1, 2, 3])
    with MetricsLog(path) as log:
        log.write(3, {"again": True})
    assert read_metrics(path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_a_file_that_is_one_torn_line(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"step"')
    assert read_metrics(path) == []
    with MetricsLog(path) as log:
        log.truncate_after(5)
        log.write(1, {})
    assert steps(path) == [1]


def test_a_broken_line_in_the_middle_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"step": 1}\n{"loss": 2}\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl, line 2"):
        read_metrics(path)


def test_without_a_path_nothing_is_written() -> None:
    with MetricsLog(None) as log:
        log.write(1, {"loss": 1})
        log.truncate_after(0)


def test_a_run_directory_holds_what_the_run_was_made_with(tmp_path: Path) -> None:
    config = {"lr": 1e-4, "arch": {"L_layers": 2}, "data_paths": [Path("data/x")], "run_name": None}
    for attempt in range(2):  # the second time as a resume
        run = open_run_directory(tmp_path / "a" / "b", "brisk-otter")
        run_directory.write_run_files(run, config, [{"fingerprint": "f00d"}])
        run.metrics.write(attempt, {})
        run.metrics.close()
    assert sorted(file.name for file in run.path.iterdir()) == [
        "config.yaml",
        "manifests.json",
        "metrics.jsonl",
        "owner.json",
        "run.lock",
        "versions.json",
    ]
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == {**config, "data_paths": ["data/x"]}
    assert json.loads((run.path / "manifests.json").read_text()) == [{"fingerprint": "f00d"}]
    versions = json.loads((run.path / "versions.json").read_text())
    assert versions["name"] == "brisk-otter"
    assert len(versions["starts"]) == 2
    assert run_directory.read_run_name(run.path) == "brisk-otter"
    versions = versions["starts"][0]
    assert versions["packages"]["torch"]
    assert {"command", "git", "python", "platform", "world_size", "gpu"} <= set(versions)
    assert steps(run.path / "metrics.jsonl") == [0, 1]


def test_names_differ_whatever_is_seeded() -> None:
    names = set()
    for _ in range(4):
        random.seed(0)
        names.add(run_directory.random_name())
    assert len(names) > 1
    assert all("-" in name and name == name.lower() for name in names)


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    assert run_directory.git_commit(tmp_path) is None
    run_directory.git_commit.cache_clear()
    git("init", "--quiet")
    assert run_directory.git_commit(tmp_path) is None  # no commit yet
    run_directory.git_commit.cache_clear()
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py")
    git("commit", "--quiet", "-m", "first")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("")
    (tmp_path / "folder").mkdir()
    assert run_directory.git_commit(tmp_path) == {"commit": commit, "dirty": False}
    assert run_directory.git_commit(tmp_path / "folder") is None  # a copy of the code inside another project's checkout
    run_directory.git_commit.cache_clear()
    (tmp_path / "code.py").write_text("2")
    assert run_directory.git_commit(tmp_path) == {"commit": commit, "dirty": True}


def test_a_second_run_in_a_folder_is_refused_until_the_first_has_gone(small_data: Path, tmp_path: Path) -> None:
    """Refused while the first lives, with its name; taken over after it was killed.  Another folder is free."""
    words = ("pretrain_no_eval.py", f"data_paths=[{small_data}]", "epochs=100000", "eval_interval=100000", *SMALL)
    first = Running((*words, f"checkpoint_path={tmp_path / 'run'}"))
    try:
        metrics = tmp_path / "run" / "metrics.jsonl"
        wait_for(lambda: metrics.exists() and len(read_metrics(metrics)) > 2)
        log = metrics.read_bytes()
        refused = run_script(*words, f"checkpoint_path={tmp_path / 'run'}")
        assert refused.returncode == 2 and f"process {first.pid} on {socket.gethostname()}" in refused.stderr
        assert metrics.read_bytes().startswith(log)
    finally:
        first.kill()
        first.communicate()
    short = ("epochs=4", "eval_interval=4")
    assert run_script(*words, *short, f"checkpoint_path={tmp_path / 'other'}").returncode == 0
    open_run_directory(tmp_path / "run", "again")
    run_directory.release_locks()


def test_a_file_system_without_locks_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    open_run_directory(tmp_path / "run", "x")
    assert capsys.readouterr().out.count("cannot be locked") == 1
