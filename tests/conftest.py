"""What tests share: where real data lie, small tasks, a small run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from dataset.tasks import Task
from tests.builders.programs import ROOT, run_script

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
hypothesis.settings.register_profile("untimed", deadline=None)  # the first call of a kernel compiles it
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def arc_dir() -> Path:
    """Real tasks in Kaggle's layout."""
    folder = Path(os.environ.get("TRM_ARC_DIR", ROOT / "../shared/data/arc"))
    if not folder.is_dir():
        pytest.skip(f"no ARC tasks in {folder} (TRM_ARC_DIR names the folder)")
    return folder


@pytest.fixture
def golden_dir() -> Path:
    """Vectors of the published implementation."""
    folder = Path(os.environ.get("TRM_GOLDEN_DIR", ROOT / "../shared/golden"))
    if not folder.is_dir():
        pytest.skip(f"no golden vectors in {folder} (TRM_GOLDEN_DIR names the folder)")
    return folder


def pytest_configure(config: pytest.Config) -> None:
    """`-m long` chooses the tests that have a long form, and the form."""
    if "long" in config.getoption("-m", ""):
        os.environ["TRM_LONG_TESTS"] = "1"


def random_task(name: str, rng: np.random.Generator, side: int = 5, train: int = 3, test: int = 1) -> Task:
    """A task of random grids up to `side`."""

    def grid() -> np.ndarray:
        return rng.integers(0, 10, rng.integers(1, side + 1, 2)).astype(np.uint8)

    def pairs(n: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        return tuple((grid(), grid()) for _ in range(n))

    return Task(name, "made", pairs(train), pairs(test))


def write_kaggle(folder: Path, subset: str, tasks: list[Task], solutions: bool = True) -> str:
    """Writes tasks in Kaggle's layout; returns the prefix."""
    challenges, solved = {}, {}
    for task in tasks:
        whole = task.to_json()
        challenges[task.id] = {"train": whole["train"], "test": [{"input": p["input"]} for p in whole["test"]]}
        solved[task.id] = [p["output"] for p in whole["test"]]
    (folder / f"arc_{subset}_challenges.json").write_text(json.dumps(challenges))
    if solutions:
        (folder / f"arc_{subset}_solutions.json").write_text(json.dumps(solved))
    return str(folder / "arc")


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compact data set of eight tasks up to 5 x 5, two of them test tasks, made by the command line."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    write_kaggle(folder, "training2", [random_task(f"train{i}", rng) for i in range(6)])
    prefix = write_kaggle(folder, "evaluation2", [random_task(f"eval{i}", rng, test=2) for i in range(2)])
    done = run_script(
        *("build_dataset.py", "--input-file-prefix", prefix, "--output-dir", str(folder / "set")),
        *("--subsets", "training2", "evaluation2", "--test-set-name", "evaluation2"),
        *("--num-aug", "4", "--max-grid-size", "6"),
    )
    assert done.returncode == 0, done.stderr
    return folder / "set"


SMALL = (
    "arch.hidden_size=32",
    "arch.num_heads=2",
    "arch.H_cycles=2",
    "arch.L_cycles=2",
    "arch.halt_max_steps=3",
    "arch.puzzle_emb_len=2",
    "arch.forward_dtype=float32",
    "global_batch_size=8",
    "lr_warmup_steps=2",
    "log_every=1",
    "compile=false",
    "device=cpu",
)
"""Overrides that make a run small."""


@pytest.fixture(scope="session")
def small_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretraining on `small_data` of a few steps, with averaged weights."""
    folder = tmp_path_factory.mktemp("runs") / "small-otter"
    done = run_script(
        *("pretrain_no_eval.py", f"data_paths=[{small_data}]", f"checkpoint_path={folder}", "run_name=small-otter"),
        *("epochs=4", "eval_interval=4", "ema=True", *SMALL),
    )
    assert done.returncode == 0, done.stderr
    return folder
