"""Runs with targets that sharpen, a growing depth and noise, from the command line: canvases, ranks, resume, the plan,
fine-tuning to votes, export, the solver."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from evaluators.solver import Solver
from tests.builders.runs import last, pretrain
from tests.conftest import SMALL, random_task, run_script
from training.checkpoint import read_part, read_record
from utils.metrics_log import read_metrics

CURRICULUM = "depth_curriculum=[[0,1,1],[0.5,2,1]]"
SUPERVISED = (
    *("sharpening_targets=true", "step_weights=linear", "latent_noise=0.01", "random_starts=true", CURRICULUM),
    *("arch.H_cycles=2", "arch.L_cycles=1", "arch.damping=0.05", "arch.step_embedding=2", "arch.halt_max_steps=3"),
    *("canvases=[[4,6],[6,6]]", "micro_batch_size=4", "ema=True"),
)
RUN = (*SMALL, *SUPERVISED)
PRETRAINING = (*RUN, "run_name=sharp-otter")


@pytest.fixture(scope="module")
def pretrained(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(small_data, tmp_path_factory.mktemp("runs") / "sharp-otter", *PRETRAINING)


def test_ranks_hide_the_same_cells_and_draw_the_same_noise(small_data: Path, pretrained: Path, tmp_path: Path) -> None:
    two = pretrain(small_data, tmp_path / "two", *PRETRAINING, ranks=2)
    losses = [[line["lm_loss"] for line in read_metrics(run / "metrics.jsonl")] for run in (pretrained, two)]
    assert len(losses[0]) > 4 and losses[1] == pytest.approx(losses[0], rel=1e-3)
    carries = [read_part(last(run), "carry", read_record(last(run))) for run in (pretrained, two)]
    keys = [key for key in carries[0] if key.endswith(("keys", "steps", "inputs"))]
    assert any(key.endswith("keys") for key in keys)
    assert all(carries[0][key].equal(carries[1][key]) for key in keys)


def test_a_resumed_run_is_the_straight_run(small_data: Path, pretrained: Path, tmp_path: Path) -> None:
    """Stopped by a checkpoint in the middle, with the same plan: the depth depends on the planned steps."""
    run = tmp_path / "run"
    pretrain(small_data, run, *PRETRAINING)
    steps = sorted(int(path.name.split("_")[1]) for path in run.glob("step_*"))
    assert len(steps) == 2
    for path in [last(run)]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    pretrain(small_data, run, *PRETRAINING)
    for part in read_record(last(pretrained)).files:
        name = part.removesuffix(".safetensors")
        mine, theirs = (read_part(last(path), name, read_record(last(path))) for path in (run, pretrained))
        assert mine.keys() == theirs.keys()
        assert all(value.equal(theirs[key]) for key, value in mine.items()), part


def test_weights_are_fine_tuned_voted_on_exported_and_solved(
    small_data: Path, pretrained: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    common = ("eval_arc_k10.py", f"data_paths=[{small_data}]", *RUN)
    noisy = ("eval_latent_noise=0.01", "eval_random_starts=true")
    done = run_script(
        *(*common, f"load_checkpoint={pretrained}", f"checkpoint_path={tuned}", "epochs=2", "eval_interval=2"),
        *("early_exit=2", *noisy),
    )
    assert done.returncode == 0, done.stderr
    (folder,) = tuned.glob("evaluation_step_*")
    conditions = json.loads((folder / "scores.json").read_text())["conditions"]
    assert (conditions["eval_latent_noise"], conditions["eval_random_starts"]) == (0.01, True)
    exported = run_script("-m", "training.export", str(pretrained), str(tmp_path / "shared"), "--format", "folder")
    assert exported.returncode == 0, exported.stderr
    refused = run_script("-m", "training.export", str(pretrained), str(tmp_path / "theirs"), "--format", "published")
    assert refused.returncode == 2 and "arch.step_embedding" in refused.stderr
    solver = Solver.load(tmp_path / "shared", global_batch_size=4, sharpening_targets=True)
    rng = np.random.default_rng(9)
    attempts = solver.predict(random_task("own", rng).to_json(), augmentations=2, finetune_steps=2)
    assert len(attempts) == 1


def test_the_plan_counts_the_depth_of_each_step(small_data: Path) -> None:
    """Half of the steps at H1, which has a pass with gradient alone: 3 of 4 units of H2, evaluations left out."""
    common = ("pretrain_no_eval.py", f"data_paths=[{small_data}]", "epochs=4", "eval_interval=4", "dry_run=true")
    flop = []
    for more in ((), ("depth_curriculum=null",)):
        done = run_script(*common, *RUN, *more)
        assert done.returncode == 0, done.stderr
        found = re.search(r"([\d.e-]+) PFLOP", done.stdout)
        assert found
        flop.append(float(found[1]))
    assert flop[0] / flop[1] == pytest.approx((0.75 + 1) / 2, rel=0.02)
