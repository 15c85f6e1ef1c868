"""training/prepare: a compiler that does not work, code that cannot be written, threads without a core."""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import numba
import pytest
import torch

import dataset
from tests.conftest import SMALL, run_script
from training.prepare import compiler
from training.prepare.compiler import name_compiler_cache, not_compiled_because
from training.prepare.threads import crowded_because

compiles_on_cpus = pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="PyTorch 2.6 never does")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")

NO_OMP = 'echo "x.cpp:3:10: fatal error: omp.h: No such file or directory" >&2; exit 1'
NO_LIBRARY = 'while [ "$1" != -o ]; do shift; done; echo nothing > "$2"'


@pytest.fixture(autouse=True)
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler._try_compiler.cache_clear()
    for name in ("CC", "CXX", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)


def stand_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A g++ and a gcc that do what the script says, before all others."""
    for name in ("g++", "gcc"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("device", [pytest.param(CPU, marks=compiles_on_cpus), CUDA])
@pytest.mark.parametrize(
    ("script", "said"),
    [
        (NO_OMP, "cannot build what PyTorch needs (x.cpp:3:10: fatal error: omp.h"),
        ("exit 3", "cannot build what PyTorch needs (?)"),
        (NO_LIBRARY, "cannot be loaded"),
    ],
)
def test_a_compiler_that_does_not_work_is_found_out(
    script: str, said: str, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, script, monkeypatch)
    reason = not_compiled_because(device)
    assert reason.startswith("not compiled, and slower for it:") and said in reason and "\n" not in reason


@compiles_on_cpus
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ is installed")
def test_a_compiler_that_works_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not_compiled_because(CPU) == ""
    assert not_compiled_because(CUDA) == ""
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no no-such-compiler is installed" in not_compiled_because(CPU)


def test_pytorch_2_6_does_not_compile_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0+cu124")
    assert "PyTorch 2.6" in not_compiled_because(CPU)


@compiles_on_cpus
def test_a_run_goes_on_without_compilation_and_says_so(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, NO_OMP, monkeypatch)
    settings = [word for word in SMALL if word != "compile=false"]
    done = run_script(
        *("pretrain_no_eval.py", f"data_paths=[{small_data}]", "epochs=1", "eval_interval=1", *settings),
        f"checkpoint_path={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("run ") and "not compiled" in first and "omp.h" in first


def test_a_user_without_a_name_has_a_cache_of_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    name_compiler_cache()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    name_compiler_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    name_compiler_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].endswith(f"torchinductor_{os.getuid()}")


KERNEL = """
import numba

@numba.njit(cache=True)
def double(x):
    return 2 * x
"""


def test_numba_caches_where_it_can_when_code_and_home_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv(dataset.NUMBA_CACHE, "")
    dataset.place_numba_cache()
    assert os.environ[dataset.NUMBA_CACHE] == "", "what can be written is used as it is"
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(dataset, "_is_writable", lambda folder: False)
    dataset.place_numba_cache()
    folder = Path(os.environ[dataset.NUMBA_CACHE])
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
    source = tmp_path / "kernel.py"
    source.write_text(KERNEL)
    spec = importlib.util.spec_from_file_location("kernel", source)
    assert spec is not None and spec.loader is not None
    kernel = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kernel", kernel)
    spec.loader.exec_module(kernel)
    assert kernel.double(3) == 6 and list(folder.rglob("*.nbi"))


def test_a_cache_that_another_user_may_write_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(dataset, "_is_writable", lambda folder: False)
    taken = tmp_path / f"trm-arc-numba-{os.getuid()}"
    for make in (lambda: taken.mkdir(), lambda: taken.symlink_to("/tmp"), lambda: taken.write_text("")):
        monkeypatch.setenv(dataset.NUMBA_CACHE, "")
        make()
        if taken.is_dir() and not taken.is_symlink():
            taken.chmod(0o777)
        dataset.place_numba_cache()
        chosen = Path(os.environ[dataset.NUMBA_CACHE])
        assert chosen != taken and chosen.parent == tmp_path and chosen.stat().st_mode & 0o777 == 0o700
        taken.rmdir() if taken.is_dir() and not taken.is_symlink() else taken.unlink()


@pytest.mark.parametrize(
    ("threads", "busy", "policy", "said"),
    [
        (2, 0.2, "", ""),
        (2, 1.1, "", "OMP_NUM_THREADS=1"),
        (4, 1.3, "", "OMP_NUM_THREADS=3"),
        (2, 4.0, "", "OMP_NUM_THREADS=1"),
        (1, 1.1, "", ""),
        (2, 1.1, "PASSIVE", ""),
    ],
)
def test_threads_without_a_core_of_their_own_are_named(
    threads: int, busy: float, policy: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(max(2, threads))))
    monkeypatch.setattr("training.prepare.threads.busy_cores", lambda _, cores: busy)
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    sentence = crowded_because(torch.device("cpu"))
    assert said in sentence and bool(said) == bool(sentence)
    assert crowded_because(torch.device("cuda")) == ""
    monkeypatch.setattr("training.prepare.threads.distributed.world_size", lambda: 2)
    assert crowded_because(torch.device("cpu")) == "", "ranks of one machine are not looked at"
