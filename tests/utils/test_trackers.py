"""utils/trackers.py: what each is left with, that none goes online by itself, what a missing one says."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, SMALL, run_script
from utils import trackers
from utils.errors import SettingError
from utils.metrics_log import MetricsLog, read_metrics
from utils.trackers import TrackerConfig, check_tracker, open_tracker


def opened(name: str, folder: Path, step: int = 0) -> trackers.Tracker:
    folder.mkdir(exist_ok=True)
    config = TrackerConfig(name=name)  # type: ignore[arg-type]
    return open_tracker(config, folder, "brisk-otter", "trm", {"lr": 0.1, "arch": {"hidden_size": 8}}, step)


def test_tensorboard_holds_each_step_once_over_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path / "run" / "metrics.jsonl") as log:
        log.tracker = opened("tensorboard", tmp_path / "run")
        for step in (10, 20, 30):
            log.write(step, {"lm_loss": 1 / step, "bad": float("nan"), "ARC/pass@2": 0.5, "pair": [1, 2]})
        trackers.close_all()
        log.truncate_after(20)
        log.tracker = opened("tensorboard", tmp_path / "run", step=20)
        log.write(30, {"lm_loss": 3.0})
        trackers.close_all()
        found = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
        points = [(event.step, event.value) for event in found.Scalars("lm_loss")]
        assert points == [pytest.approx(point) for point in ((10, 0.1), (20, 0.05), (30, 3.0))]
        assert set(found.Tags()["scalars"]) == {"lm_loss", "ARC/pass_at_2"}
        (text,) = found.Tensors("settings/text_summary")
        assert b"hidden_size: 8" in text.tensor_proto.string_val[0]
        assert [line["step"] for line in read_metrics(log.path)] == [10, 20, 30]  # type: ignore[arg-type]


def run_offline(code: str, **environment: str) -> str:
    """Runs code in which every connection but to a local socket fails; returns what it printed."""
    guard = (
        "import socket\n"
        "def refuse(self, address):\n"
        "    assert self.family == socket.AF_UNIX or address[0] in ('127.0.0.1', 'localhost', '::1'), address\n"
        "    return real(self, address)\n"
        "real = socket.socket.connect\n"
        "socket.socket.connect = refuse\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", guard + code],
        **{"cwd": ROOT, "env": {**os.environ, **environment}, "stdin": subprocess.DEVNULL, "timeout": 120},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


TWO_STARTS = """
import time
from pathlib import Path
from utils import trackers
folder = Path({folder!r})
folder.mkdir()
config = trackers.TrackerConfig(name={name!r})
settings = {{"lr": 0.1, "arch": {{"hidden_size": 8}}}}
for step, value in ((0, 0.5), (1, 0.25)):
    tracker = trackers.open_tracker(config, folder, "brisk-otter", "trm", settings, step)
    tracker.log(step + 1, {{"lm_loss": value}})
    trackers.close_all()
    time.sleep(1.1)  # wandb names a start by its second
"""


def test_trackio_keeps_one_run_on_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    code = TWO_STARTS.format(name="trackio", folder=str(tmp_path / "run"))
    said = run_offline(code, TRACKIO_DIR=str(tmp_path / "home"), TRACKIO_SPACE_ID="someone/space", HF_TOKEN="x")
    assert said == ""
    with sqlite3.connect(tmp_path / "home" / "trm.db") as database:
        rows = database.execute("select run_id, run_name, step, metrics from metrics order by id").fetchall()
    assert len({row[0] for row in rows}) == 1 and {row[1] for row in rows} == {"brisk-otter"}
    assert [(row[2], json.loads(row[3])) for row in rows] == [(1, {"lm_loss": 0.5}), (2, {"lm_loss": 0.25})]


def test_wandb_offline_asks_nothing_and_resumes_under_one_id(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    code = TWO_STARTS.format(name="wandb", folder=str(tmp_path / "run"))
    said = run_offline(code, HOME=str(tmp_path / "home"), WANDB_API_KEY="", WANDB_MODE="online")
    assert said == ""
    identity = json.loads((tmp_path / "run" / trackers.TRACKER).read_text())["id"]
    files = sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb"))
    held = b"".join(path.read_bytes() for path in files)
    assert files and b"lm_loss" in held and b"0.5" in held and b"0.25" in held and b"hidden_size" in held


@pytest.mark.parametrize(("name", "more"), [("wandb", ""), ("trackio", ", entity='someone/space'")])
def test_online_without_a_login_is_a_sentence_and_no_prompt(name: str, more: str, tmp_path: Path) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    code = f"""
from utils.trackers import TrackerConfig, check_tracker
try:
    check_tracker(TrackerConfig(name={name!r}, mode="online"{more}))
except ValueError as error:
    print(error)
"""
    nobody = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path), "WANDB_API_KEY": "", "HF_TOKEN": ""}
    said = run_offline(code, **nobody)
    assert said.startswith(f"tracker.mode=online finds no login for {name} (") and said.count("\n") == 1


class UsageError(Exception):
    """As wandb's own."""


def login_of_0_25(key: str | None = None, relogin: bool | None = None, verify: bool = False) -> bool:
    """It asks wherever it can."""
    assert not sys.stdin.isatty(), "it would wait for an answer"
    raise UsageError("No API key configured. Use `wandb login` to log in.")


def older_login(key: str | None = None) -> bool:
    raise UsageError("api_key not configured (no-tty). call wandb.login(key=[your_api_key])")


def login_with_prompt(*, prompt: bool = True) -> bool:
    assert not prompt
    return False


def login_of_anything(**options: object) -> bool:
    return options == {"prompt": False}


def other_login(key: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("login", "said"),
    [
        (login_of_0_25, "finds no login for wandb"),
        (older_login, "finds no login for wandb"),
        (login_with_prompt, "finds no login for wandb"),
        (login_of_anything, None),
        (lambda key=None: True, None),
        (other_login, "wandb refuses to log in (other_login() missing 1 required"),
    ],
)
def test_every_login_of_wandb_answers_without_a_question(
    login: Callable[..., bool], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    wandb = types.ModuleType("wandb")
    wandb.__file__ = "wandb/__init__.py"
    wandb.login = login  # type: ignore[attr-defined]
    wandb.errors = types.SimpleNamespace(UsageError=UsageError, Error=UsageError)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdin", terminal)
    config = TrackerConfig(name="wandb", mode="online")
    if said is None:
        check_tracker(config)
    else:
        with pytest.raises(SettingError) as error:
            check_tracker(config)
        assert said in str(error.value) and "\n" not in str(error.value)
    assert sys.stdin is terminal


@pytest.mark.parametrize("name", list(trackers.MODULES))
def test_a_missing_package_is_one_sentence_that_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in [module for module in sys.modules if module.startswith(("torch.utils.tensorboard", name))]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    with pytest.raises(SettingError) as error:
        check_tracker(TrackerConfig(name=name))  # type: ignore[arg-type]
    assert f'tracker={name} needs its package: pip install -e ".[{name}]"' in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_of_the_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb makes a folder wandb where it is told nothing else, and Python takes it for a package."""
    (tmp_path / "wandb").mkdir()
    for loaded in [module for module in sys.modules if module.split(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(SettingError, match="only a folder wandb was found"):
        check_tracker(TrackerConfig(name="wandb"))


def test_a_run_without_its_tracker_ends_before_it_makes_a_folder(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # type: ignore[arg-type]
    done = run_script(
        *("pretrain_no_eval.py", "tracker=wandb", f"data_paths=[{small_data}]", "epochs=2", *SMALL),
        f"checkpoint_path={tmp_path / 'run'}",
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and 'pip install -e ".[wandb]"' in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_is_tracked_by_rank_0_and_goes_on_where_it_was(small_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    common = ("pretrain_no_eval.py", f"data_paths=[{small_data}]", "eval_interval=1", f"checkpoint_path={run}", *SMALL)
    first = run_script(*common, "epochs=1", "tracker=tensorboard", ranks=2)
    assert first.returncode == 0, first.stderr
    assert "warning" not in (first.stdout + first.stderr).lower()
    assert first.stdout.count("tracked by tensorboard, offline") == 1
    (begun,) = (run / "tensorboard").iterdir()
    # TensorBoard orders files by the second in which they were begun, then by process; a person never is as fast.
    while int(time.time()) <= int(begun.name.split(".")[3]):
        time.sleep(0.05)
    second = run_script(*common, "epochs=2", "+tracker=tensorboard")
    assert second.returncode == 0, second.stderr
    found = EventAccumulator(str(run / "tensorboard")).Reload()
    logged = read_metrics(run / "metrics.jsonl")
    assert [event.step for event in found.Scalars("lm_loss")] == [line["step"] for line in logged]
    assert [e.value for e in found.Scalars("lm_loss")] == pytest.approx([line["lm_loss"] for line in logged])
    third = run_script(*common, "epochs=3", "tracker=null")
    assert third.returncode == 0 and "settings changed" not in third.stdout
    assert len(read_metrics(run / "metrics.jsonl")) > len(logged)
    assert len(list((run / "tensorboard").iterdir())) == 2


def test_a_tracker_that_fails_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def __init__(self, run: object) -> None:
            self.calls = 0

        def log(self, step: int, metrics: Mapping[str, Any]) -> None:
            raise OSError("no space left")

        def close(self) -> None:
            raise AssertionError("closed after it failed")

    monkeypatch.setitem(trackers._KINDS, "tensorboard", Broken)
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.tracker = opened("tensorboard", tmp_path)
        for step in (1, 2):
            log.write(step, {"lm_loss": 1.0})
        trackers.close_all()
        assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
    said = capsys.readouterr().out
    assert said.count("the tracker failed (OSError: no space left)") == said.count("\n") == 1
