"""examples/kaggle_arc_agi_2.ipynb, every cell in order, with a tiny model on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, SMALL, random_task, run_script, write_kaggle

NOTEBOOK = ROOT / "examples" / "kaggle_arc_agi_2.ipynb"


@pytest.mark.slow
@pytest.mark.parametrize("scoring", [False, True])
def test_the_notebook_leaves_a_submission(scoring: bool, small_data: Path, tmp_path: Path) -> None:
    """A dry run on the public tasks; the scoring run on those whose answers nobody has."""
    checkpoint = tmp_path / "checkpoint"
    done = run_script(
        "pretrain_no_eval.py", f"data_paths=[{small_data}]", "epochs=4", f"checkpoint_path={checkpoint}", *SMALL
    )
    assert done.returncode == 0, done.stderr
    competition, work = tmp_path / "competition", tmp_path / "work"
    competition.mkdir()
    work.mkdir()
    rng = np.random.default_rng(0)
    for subset, solved in (("evaluation", True), ("test", False)):
        tasks = [random_task(f"{subset}{i}", rng) for i in range(3)]
        prefix = Path(write_kaggle(competition, subset, tasks, solutions=solved))
    for path in competition.glob("arc_*"):
        path.rename(path.with_name(path.name.replace("arc_", "arc-agi_", 1)))
    assert prefix.parent == competition
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    script = tmp_path / "cells.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    settings = {
        **{"TRM_COMPETITION": competition, "TRM_REPOSITORY": ROOT, "TRM_CHECKPOINT": checkpoint, "TRM_WORK": work},
        **{"TRM_WHEELS": tmp_path / "none", "TRM_AUGMENTATIONS": 3, "TRM_MINUTES": 0.3, "TRM_DRY_MINUTES": 0.3},
        "TRM_MORE": " ".join((*SMALL, "epochs=100000", "eval_interval=100000", "puzzle_rows=mean")),
    }
    if scoring:
        settings["KAGGLE_IS_COMPETITION_RERUN"] = "1"
    ran = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **{key: str(value) for key, value in settings.items()}, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    built = json.loads((work / "submission.json").read_text())
    assert set(built) == {f"{'test' if scoring else 'evaluation'}{i}" for i in range(3)}
    assert all(set(entry) == {"attempt_1", "attempt_2"} for entries in built.values() for entry in entries)
    assert "is valid: 3 tasks, 3 test inputs, 2 attempts each" in ran.stdout
