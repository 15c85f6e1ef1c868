"""What all command lines share: the exit status, how an error is printed, and the rank that prints it.

    0      The program has done what was asked.
    2      The input cannot be used.  One sentence on standard error names the thing, its value and the remedy.
    130    SIGINT (Ctrl-C) has stopped the program.
    141    Nothing reads what the program prints any more, as after `| head`.  It ends and says nothing.
    143    SIGTERM has stopped the program.

Any other exception is a fault of this program: it keeps its traceback, and the status is 1.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from utils.errors import InputError

EXIT_BAD_INPUT = 2
"""The exit status where settings, data or a checkpoint cannot be used as given."""

EXIT_CLOSED_PIPE = 128 + signal.SIGPIPE
"""The exit status where the pipe that the program prints to is closed: that of a program which SIGPIPE ends."""

REMEDIES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room, or ask for a larger quota",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "name a place that can be written",
    errno.ENOENT: "check the path",
}
"""What a user can do about an error of the operating system; about others there is nothing to say in general."""

SECONDS_FOR_RANK_0 = 5.0

OLDEST = {"torch": (2, 6), "numpy": (2, 0), "numba": (0, 60)}
"""The oldest release of each package that this program runs with."""

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The environment variables that torchrun sets for every rank."""


class StoppedBySignal(Exception):
    """A signal has stopped the program, and the program has left everything in order.

    Args:
        number: the signal.
        sentence: what is printed.
    """

    def __init__(self, number: int, sentence: str) -> None:
        self.signal = signal.Signals(number)
        super().__init__(sentence)


def run_command(main: Callable[[], object]) -> int:
    """Runs `main` and returns the exit status that the program ends with.

    Raises:
        Exception: whatever `main` raises that is a fault of this program.
    """
    try:
        status = _run(main)
        sys.stdout.flush()
        return status
    except OSError as error:
        is_closed_pipe = _silence_broken_streams() and isinstance(error, BrokenPipeError)
        if is_closed_pipe:
            return EXIT_CLOSED_PIPE
        print_once(f"error: {_sentence_of(error)}")
        return EXIT_BAD_INPUT


def _run(main: Callable[[], object]) -> int:
    """Runs `main` and returns the exit status; an error of the operating system is raised."""
    try:
        check_versions()
        main()
    except SystemExit as end:  # from argparse, or from Hydra
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print_once(str(end.code))
        return 1
    except InputError as error:
        print_once(f"error: {error}")
        return EXIT_BAD_INPUT
    except StoppedBySignal as stop:
        print_once(str(stop))
        return 128 + stop.signal
    except KeyboardInterrupt:
        print_once("stopped by SIGINT")
        return 128 + signal.SIGINT
    return 0


def check_versions() -> None:
    """Checks the packages that are loaded.

    Raises:
        InputError: naming the one that is too old, before it fails somewhere with an error of its own.
    """
    for name, oldest in OLDEST.items():
        found = str(getattr(sys.modules.get(name), "__version__", ""))
        release = re.match(r"(\d+)\.(\d+)", found)
        if release is not None and (int(release[1]), int(release[2])) < oldest:
            wanted = ".".join(map(str, oldest))
            raise InputError(f'{name} {found} is too old, {wanted} is needed: pip install --upgrade "{name}>={wanted}"')


def usable_cores() -> int:
    """Returns how many cores this process may use: those it is bound to, or fewer where a container has a quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(bound, quota_of_container())))


def quota_of_container(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Returns how many cores' time the container of this process gets (Linux control groups 2, then 1)."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((root / name).read_text(encoding="ascii") for name in names).split()
            if float(quota) > 0:
                return float(quota) / float(period)
        except (OSError, ValueError):  # there is none; "max" is not a number
            continue
    return math.inf


def command(main: Callable[[], object]) -> Callable[[], None]:
    """Decorates the `main` function of a program: it leaves with `run_command`'s status unless that is 0."""

    @functools.wraps(main)
    def run_and_exit() -> None:
        if status := run_command(main):
            sys.exit(status)

    return run_and_exit


def exit_with(status: int) -> None:
    """Ends the program.

    One rank of several skips the interpreter's own shutdown.  Gloo's threads may still run at that time, and now and
    then they abort a process that has finished its work (PyTorch 2.13).
    """
    if is_launched():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


@contextmanager
def raising_on_sigterm(sentence: str) -> Iterator[None]:
    """Within the block SIGTERM raises `StoppedBySignal`, so that files which are being written are removed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise StoppedBySignal(number, sentence)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_launched() -> bool:
    """Returns whether torchrun, or something that sets the same variables, has started this process."""
    return all(name in os.environ for name in LAUNCHER_VARIABLES)


def launched_rank() -> int:
    """Returns the rank that torchrun has given this process; 0 if it runs alone."""
    return int(os.environ["RANK"]) if is_launched() else 0


def print_once(sentence: str) -> None:
    """Prints a last sentence on standard error, once for all ranks.

    All ranks refuse the same input, and torchrun kills the others as soon as one has ended.  The others therefore wait
    until rank 0 has printed.  If they are still alive after that, their error is their own, and they print it too.
    """
    rank = launched_rank()
    if rank:
        time.sleep(SECONDS_FOR_RANK_0)
        sentence = f"rank {rank}: {sentence}"
    print(sentence, file=sys.stderr, flush=True)


def _silence_broken_streams() -> bool:
    """Lets the streams that cannot be written lead nowhere, so that the interpreter's own last flush does not fail.

    Returns:
        whether there was one.
    """
    found = False
    for stream in (sys.stdout, sys.stderr):
        if _is_broken(stream):
            found = True
            with contextlib.suppress(OSError):  # a stream without a file has nothing to redirect
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
    return found


def _is_broken(stream: TextIO) -> bool:
    """Returns whether a stream cannot be written, or is a pipe that nothing reads."""
    try:
        stream.flush()
    except OSError:
        return True
    try:
        poll = select.poll()  # an unbuffered stream has nothing left to flush
        poll.register(stream.fileno(), 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))
    except OSError:  # a stream without a file
        return False


def _sentence_of(error: OSError) -> str:
    """Returns the file, the error, and the remedy if there is one."""
    if not error.strerror:  # of a library, which has its own sentence
        return str(error) or type(error).__name__
    place = error.filename if error.filename is not None else {errno.ENOSPC: "the disk"}.get(error.errno or 0)
    return ": ".join(str(part) for part in (place, error.strerror, REMEDIES.get(error.errno or 0)) if part is not None)
