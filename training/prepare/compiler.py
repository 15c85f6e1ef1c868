"""Decides whether a device's step can be compiled on this machine."""

from __future__ import annotations

import ctypes
import functools
import getpass
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import torch

from training.config import TrainConfig

SLOWER = "not compiled, and slower for it:"

_PROBES = {
    "cpu": """
#include <Python.h>
#include <omp.h>
#include <optional>
extern "C" int works() { if constexpr (sizeof(std::optional<int>) > 0) return omp_get_max_threads() > 0; return 0; }
""",
    "cuda": """
#include <Python.h>
int works(void) { return 1; }
""",
}
"""What every compiled step needs of a compiler: on a CPU the step becomes C++ with OpenMP; on a GPU Triton builds a
launcher in C.  Both include Python's header."""

_OPTIONS = {"cpu": ("-x", "c++", "-std=c++17", "-fopenmp"), "cuda": ("-x", "c")}


def should_compile(config: TrainConfig, device: torch.device) -> bool:
    """Returns whether to compile the step: as set, else if everything that the compiler needs is installed."""
    return config.compile if config.compile is not None else not not_compiled_because(device)


def not_compiled_because(device: torch.device) -> str:
    """Says what compilation for a device needs and this machine does not have; empty if nothing is missing.

    The compiler is tried once.  It may be there and not work: be too old, lack headers, or build files that cannot be
    loaded from where they are kept.
    """
    if device.type == "cpu" and torch.__version__.startswith("2.6."):
        return f"{SLOWER} the compiler of PyTorch 2.6 fails on CPUs; 2.7 is the first that does not"
    kind = "cuda" if device.type == "cuda" else "cpu"
    named = os.environ.get("CC" if kind == "cuda" else "CXX", "")
    compilers = (named,) if named else ("gcc", "clang", "cc") if kind == "cuda" else ("g++",)
    compiler = next((path for name in compilers if (path := shutil.which(name))), None)
    if compiler is None:
        return f"{SLOWER} no {' or '.join(compilers)} is installed"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return f"{SLOWER} Python.h is missing (on Debian and Ubuntu: apt install python3-dev)"
    problem = _try_compiler(compiler, kind, str(_kept_in(kind)))
    return problem and f"{SLOWER} {problem}"


def _kept_in(kind: str) -> Path:
    """Returns where PyTorch or Triton keeps what it has compiled; the nearest folder above that exists."""
    if kind == "cuda":
        folder = Path(os.environ.get("TRITON_CACHE_DIR") or os.path.expanduser("~/.triton/cache"))
    else:
        folder = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir())
    return next((each for each in (folder, *folder.parents) if os.access(each, os.W_OK)), Path(tempfile.gettempdir()))


@functools.cache
def _try_compiler(compiler: str, kind: str, folder: str) -> str:
    """Builds a library in a folder and calls it; returns what fails, empty if nothing does."""
    with tempfile.TemporaryDirectory(prefix="probe", dir=folder) as scratch:
        source, library = Path(scratch, "probe.src"), Path(scratch, "probe.so")
        source.write_text(_PROBES[kind], encoding="ascii")
        command = [compiler, *_OPTIONS[kind], "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", str(source)]
        try:
            done = subprocess.run(
                [*command, "-o", str(library)],
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=120,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{compiler} does not run ({error})"
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
            return f"{compiler} cannot build what PyTorch needs ({said[0].strip()})"
        try:
            works = bool(ctypes.CDLL(str(library)).works())
        except (OSError, AttributeError) as error:
            return (
                f"what {compiler} builds in {folder} cannot be loaded ({error}): set TORCHINDUCTOR_CACHE_DIR or TMPDIR"
            )
        return "" if works else f"what {compiler} builds does not work"


def name_compiler_cache() -> None:
    """Tells PyTorch where to keep what it compiles, for a user without a name: it would fail to ask for the name."""
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    try:
        getpass.getuser()
    except (KeyError, OSError):  # the latter from Python 3.13 on
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(tempfile.gettempdir(), f"torchinductor_{os.getuid()}"))
