"""C++ sources compiled for this machine on first use, kept in the user's cache, loaded through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

COMPILE = ("g++", "-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp")


def cpu_flags() -> frozenset[str]:
    """What the processor can do, as Linux names it; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return frozenset()
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def cache_folder() -> Path:
    """Where compiled sources are kept: XDG_CACHE_HOME/trm-arc, else ~/.cache/trm-arc."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trm-arc"


def load(source: Path, *options: str) -> ctypes.CDLL | None:
    """A C++ source as a library; None where there is no g++ or it does not compile.

    Any number of processes may ask at once: each compiles into a file of its own and puts it in place whole.

    Args:
        options: for the compiler besides `COMPILE`.
    """
    compiler = shutil.which(COMPILE[0])
    if compiler is None:
        return None
    version = subprocess.run([compiler, "--version"], check=False, capture_output=True).stdout
    made_of = (source.read_bytes(), version, repr((COMPILE, options, sorted(cpu_flags()), platform.machine())).encode())
    name = f"{source.stem}-{hashlib.sha256(b'|'.join(made_of)).hexdigest()[:20]}.so"
    target = cache_folder() / name
    if target.is_file():
        return ctypes.CDLL(str(target))
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / name
        command = [compiler, *COMPILE[1:], *options, str(source), "-o", str(made)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return None
        library = ctypes.CDLL(str(made))
        _keep(made, target)
        return library


def _keep(made: Path, target: Path) -> None:
    """Puts a file into the cache; where that cannot be written, the next process compiles again."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(made, partial)
        os.replace(partial, target)
    except OSError:
        return
