"""Compiles C++ sources for this machine on first use, keeps them in the user's cache and loads them through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from utils import files
from utils.progress import print0

COMPILE = ("g++", "-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp")


def cpu_flags() -> frozenset[str]:
    """Returns the processor's instruction sets, as Linux names them; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return frozenset()
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def cache_folder() -> Path | None:
    """Returns where compiled sources are kept: XDG_CACHE_HOME/trm-arc or ~/.cache/trm-arc; None without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trm-arc"
    except RuntimeError:
        return None


def load(source: Path) -> ctypes.CDLL | None:
    """Returns a C++ source as a library; None without g++, or where it does not compile or cannot be loaded.

    Any number of processes may call this at once: each compiles into a file of its own and renames it into place.
    """
    compiler = shutil.which(COMPILE[0])
    if compiler is None:
        return None
    version = subprocess.run([compiler, "--version"], check=False, capture_output=True).stdout
    made_of = (source.read_bytes(), version, repr((COMPILE, sorted(cpu_flags()), platform.machine())).encode())
    name = f"{source.stem}-{hashlib.sha256(b'|'.join(made_of)).hexdigest()[:20]}.so"
    folder = cache_folder()
    kept = None if folder is None else _open(folder / name)
    if kept is not None:
        return kept
    print0(f"compiling {source.name} for this processor: seconds, the first time")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / name
        command = [compiler, *COMPILE[1:], str(source), "-o", str(made)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return None
        library = _open(made)
        is_kept = library is not None and folder is not None and _keep(made, folder / name)
        print0(f"compiling took {time.perf_counter() - started:.1f} s" + (f"; kept in {folder}" if is_kept else ""))
        return library


def _open(path: Path) -> ctypes.CDLL | None:
    """Returns the library; None where there is none, or one that this system does not load (incomplete, foreign)."""
    try:
        return ctypes.CDLL(str(path)) if path.is_file() else None
    except OSError:
        return None


def _keep(made: Path, target: Path) -> bool:
    """Puts a file into the cache; returns whether it can be written.  If not, the next process compiles again."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(made, partial)
        files.sync(partial)
        os.replace(partial, target)
    except OSError:
        return False
    return True
