"""Runs the programs of this project for tests, the cheapest way that shows what a test asks for.

    run_script(..)            in this process: nothing is imported again.
    run_script(.., ranks=2)   each rank in a process of its own, with the variables that torchrun sets.
    start(..)                 in the background, in a process of its own, for tests that kill it.
    run_process(..)           as a user starts it, Python and all imports included; several ranks under torchrun.

The processes of the second and third are copies of one that has imported everything (`multiprocessing`'s fork server),
so that each starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
PROGRAMS = ("build_dataset", "pretrain_no_eval", "eval_arc_k10", "training.export.__main__", "torch.distributed.run")
LATE = ("torch._dynamo", "torch._inductor.compile_fx", "torch.onnx")
"""What PyTorch imports when a step is compiled or given to several ranks."""


@dataclass(frozen=True)
class Finished:
    """How a program ended: the fields of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run_script(*arguments: str, ranks: int = 1, timeout: float = 240) -> Finished:
    """Runs a program: the words behind `python` of its command, such as `solve.py ..` or `-m utils.plot ..`."""
    if ranks > 1:
        process = RunningRanks(arguments, ranks)
        out, err = process.communicate(timeout)
        return Finished(process.returncode or 0, out, err)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.chdir(ROOT), mock.patch.dict(os.environ, ENVIRONMENT):
            return run_here(arguments)
    finally:
        torch.set_num_threads(before)


def run_here(words: Sequence[str]) -> Finished:
    """Runs a program in this process and in the working directory, and leaves the process as it was."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = _run(words)
    return Finished(status, out.getvalue(), err.getvalue())


def _run(words: Sequence[str]) -> int:
    """Runs a program as `python WORDS` does and returns its exit status."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()  # else the graphs of every earlier run count towards the limit of recompilations
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    is_module = words[0] == "-m"
    argv = list(words[1:] if is_module else words)
    try:
        with mock.patch.object(sys, "argv", argv), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"'[\w.]+' found in sys.modules after import", RuntimeWarning)
            if is_module:
                runpy.run_module(argv[0], run_name="__main__", alter_sys=False)
            else:
                runpy.run_path(str(ROOT / argv[0]), run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


def run_process(*arguments: str, ranks: int = 1, timeout: float = 240, **more: str) -> Finished:
    """Runs `python ARGUMENTS` as a user does, under torchrun for several ranks.  more: environment variables."""
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [*launcher, *arguments],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT | more,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def start(*arguments: str, ranks: int = 1, more: tuple[str, ...] = ()) -> Running | subprocess.Popen[str]:
    """Starts a script in the background, in a process group of its own; under torchrun where there are several ranks.

    Args:
        more: options of torchrun.
    """
    if ranks == 1 and not more:
        return Running(arguments)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *more]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


class Running:
    """A program in a copy of the fork server, with those methods of `subprocess.Popen` that tests call."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="program")
        self._files = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        self._process = _server().Process(
            target=_in_copy, args=(list(words), dict(environment or {}), *map(str, self._files))
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the end and returns standard output and standard error."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("the program", timeout or 0)
        out, err = (path.read_text(encoding="utf-8") if path.exists() else "" for path in self._files)
        return out, err


class RunningRanks:
    """The ranks of one program, each a `Running`.  When one fails the others are killed, as torchrun does."""

    def __init__(self, words: Sequence[str], ranks: int) -> None:
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
        self._ranks = [
            Running(words, common | {"LOCAL_WORLD_SIZE": str(ranks), "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(ranks)
        ]
        self._failed: int | None = None

    @property
    def returncode(self) -> int | None:
        """The status of the rank that failed first, or 0, once all ranks have ended."""
        statuses = [rank.poll() for rank in self._ranks]
        return None if None in statuses else self._failed or 0

    def poll(self) -> int | None:
        failed = [status for rank in self._ranks if (status := rank.poll())]
        if failed and self._failed is None:
            self._failed = failed[0]
            self.kill()
        return self.returncode

    def kill(self) -> None:
        for rank in self._ranks:
            rank.kill()

    def communicate(self, timeout: float = 240) -> tuple[str, str]:
        """Waits for the end, kills what runs longer, and returns standard output and standard error of all ranks."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill()
            time.sleep(0.02)
        said = [rank.communicate() for rank in self._ranks]
        return "".join(out for out, _ in said), "".join(err for _, err in said)


def _server() -> Any:
    """The context of the fork server, which is started at the first call."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.builders.preloaded"])
    with mock.patch.dict(os.environ, ENVIRONMENT):
        multiprocessing.forkserver.ensure_running()
    return context


def _in_copy(words: list[str], environment: dict[str, str], out: str, err: str) -> None:
    """The whole life of a copy: its standard output and error go to files, its status is the program's."""
    os.setsid()
    for number, path in ((1, out), (2, err)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, encoding="utf-8") for number in (1, 2))  # noqa: SIM115
    os.environ |= ENVIRONMENT | environment
    os.chdir(ROOT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    torch.set_num_threads(1)
    status = _run(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def preload() -> None:
    """Imports what the programs need."""
    for name in PROGRAMS + LATE:
        importlib.import_module(name)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
