"""utils/cli.py and utils/consensus.py: exit status, the one sentence of an error, signals."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
import tomllib
import types
from pathlib import Path

import pytest

from tests.builders.programs import ROOT
from utils import cli
from utils.cli import StoppedBySignal, command, raising_on_sigterm, run_command
from utils.consensus import StopSignals
from utils.errors import CheckpointError, DataError, InputError, SettingError, SubmissionError


def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("kind", [InputError, SettingError, DataError, CheckpointError, SubmissionError])
def test_what_the_user_can_correct_is_one_sentence_and_status_2(
    kind: type[InputError], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(lambda: raising(kind("lr=fast is not a number: write 0.1"))) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "error: lr=fast is not a number: write 0.1\n")


def test_files_that_cannot_be_opened_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_command(lambda: (tmp_path / "none").read_text()) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {tmp_path / 'none'}: No such file") and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk: No space left on device: make room on the disk"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npy"), "a.npy: No space left on device: make room on the"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a.npy"), "a.npy: Disk quota exceeded: make room, or ask"),
        (OSError(errno.EACCES, "Permission denied", "a.npy"), "a.npy: Permission denied: check its permissions"),
        (OSError(errno.EROFS, "Read-only file system", "out"), "out: Read-only file system: name a place"),
        (OSError(errno.ENOENT, "No such file or directory", "a"), "a: No such file or directory: check the path"),
        (OSError(errno.EISDIR, "Is a directory", "a"), "a: Is a directory\n"),
        (OSError(errno.ECONNREFUSED, "Connection refused"), "Connection refused\n"),
        (OSError("the hub cannot be reached"), "the hub cannot be reached\n"),
        (OSError(errno.EPIPE, "Broken pipe"), "Broken pipe\n"),  # of a connection: the output itself is whole
    ],
)
def test_an_error_of_the_system_has_its_own_remedy(
    error: OSError, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(lambda: raising(error)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {sentence}") and printed.count("\n") == 1


PRINTS = "from utils.cli import command; command(lambda: print('x' * {length}))()"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("length", [10, 10**6])  # the first is in the buffer until the program ends
def test_a_closed_pipe_ends_the_program_quietly(length: int, unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    read, write = os.pipe()
    os.close(read)
    program = [sys.executable, "-c", PRINTS.format(length=length)]
    try:
        done = subprocess.run(program, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_on_a_full_disk_is_an_error(unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    program = [sys.executable, "-c", PRINTS.format(length=10)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(program, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "error: the disk: No space left on device: make room on the disk\n"


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    for error in (KeyError("x"), AssertionError()):
        with pytest.raises(type(error)):
            run_command(lambda error=error: raising(error))  # type: ignore[misc]
    with pytest.raises(json.JSONDecodeError):  # a ValueError, but of a library
        run_command(lambda: json.loads("no JSON"))


@pytest.mark.parametrize(
    ("package", "version", "wanted"),
    [
        *[("torch", "2.5.1+cu121", "2.6"), ("torch", "1.13.0", "2.6"), ("numpy", "1.26.4", "2.0")],
        *[
            ("numba", "0.59.1", "0.60"),
            ("torch", "2.6.0", None),
            ("torch", "2.10.0a0+git1", None),
            ("torch", "?", None),
        ],
        *[("numpy", "2.0.2", None), ("numba", "1.0.0", None)],
    ],
)
def test_a_package_that_is_too_old_is_one_sentence(
    package: str, version: str, wanted: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, types.SimpleNamespace(__version__=version))  # type: ignore[arg-type]
    ran: list[int] = []
    status = run_command(lambda: ran.append(1))
    if wanted is None:
        assert (status, ran) == (0, [1])
    else:
        assert (status, ran) == (2, [])
        said = f'error: {package} {version} is too old, {wanted} is needed: pip install --upgrade "{package}>={wanted}"'
        assert capsys.readouterr().err == said + "\n"


def test_the_oldest_packages_are_those_of_the_project() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for name, oldest in cli.OLDEST.items():
        assert any(line.split(",")[0] == f"{name}>={'.'.join(map(str, oldest))}" for line in wanted), name


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (StoppedBySignal(signal.SIGTERM, "stopped after step 3"), 143, "stopped after step 3\n"),
        (StoppedBySignal(signal.SIGINT, "stopped after step 3"), 130, "stopped after step 3\n"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT\n"),
        (SystemExit(), 0, ""),
        (SystemExit(5), 5, ""),
        (SystemExit("error: no"), 1, "error: no\n"),
    ],
)
def test_other_ends(error: BaseException, status: int, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: raising(error)) == status
    assert capsys.readouterr().err == printed


def test_a_program_leaves_with_the_status() -> None:
    done = []
    command(lambda: done.append(1))()
    assert done == [1]
    with pytest.raises(SystemExit) as ended:
        command(lambda: raising(SettingError("no")))()
    assert ended.value.code == 2


def test_only_rank_0_prints_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The other ranks wait, and name themselves."""
    waited: list[float] = []
    monkeypatch.setattr(cli.time, "sleep", waited.append)
    for name, value in zip(cli.LAUNCHER_VARIABLES, ("3", "4", "localhost", "1"), strict=True):
        monkeypatch.setenv(name, value)
    assert run_command(lambda: raising(SettingError("no"))) == 2
    assert capsys.readouterr().err == "rank 3: error: no\n" and waited == [cli.SECONDS_FOR_RANK_0]
    monkeypatch.setenv("RANK", "0")
    assert run_command(lambda: raising(SettingError("no"))) == 2
    assert capsys.readouterr().err == "error: no\n" and len(waited) == 1


def test_sigterm_raises_within_the_block_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedBySignal, match="nothing is left"), raising_on_sigterm("nothing is left behind"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_recorded_and_a_repeated_one_counts_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert stop.received == 0
        for _ in range(2):  # as a job scheduler and torchrun both send it
            os.kill(os.getpid(), number)
        assert stop.received == number
    assert signal.getsignal(number) is before


TWICE = """
import signal, sys, time
from utils import consensus
consensus.REPEAT_SECONDS = 0.2
with consensus.StopSignals():
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
"""


def test_a_second_signal_ends_the_program_at_once() -> None:
    """Though it never looks at the first one."""
    process = subprocess.Popen(
        [sys.executable, "-c", TWICE], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT and said == ""


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_quota_of_a_container_is_read(files: dict[str, str], cores: float, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cli.quota_of_container(tmp_path) == cores


def test_usable_cores_are_those_the_process_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7, 9})
    for quota, cores in ((math.inf, 4), (1.5, 2), (0.1, 1)):
        monkeypatch.setattr(cli, "quota_of_container", lambda quota=quota: quota)
        assert cli.usable_cores() == cores
