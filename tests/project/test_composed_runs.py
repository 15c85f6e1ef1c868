"""Runs with a composed puzzle embedding, from the command line: ranks, resume, new tasks, votes, export, the solver."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dataset.storage import open_test_tasks
from evaluators.inference.predictions import Predictions
from evaluators.report.saved_run import read_saved_run
from evaluators.solver import Solver
from evaluators.submission import check_submission
from evaluators.tools import recount
from tests.builders.runs import last, pretrain, rows_in
from tests.conftest import SMALL, random_task, run_script, write_kaggle
from training.checkpoint import read_part, read_record
from utils.metrics_log import read_metrics

COMPOSED = (
    *("arch.puzzle_embedding=composed", "arch.augmentation_rank=2", "canvases=[[4,6],[6,6]]", "micro_batch_size=4"),
    *("arch.composition=scale_shift", "ema=True"),
)
FRESH = ("fresh_augmentations=true",)
RUN = (*SMALL, *COMPOSED)
PRETRAINING = (*RUN, "run_name=composed-otter")


@pytest.fixture(scope="module")
def pretrained(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(small_data, tmp_path_factory.mktemp("runs") / "composed-otter", *PRETRAINING, *FRESH)


def test_ranks_train_the_same_rows_on_the_same_fresh_augmentations(
    small_data: Path, pretrained: Path, tmp_path: Path
) -> None:
    two = pretrain(small_data, tmp_path / "two", *PRETRAINING, *FRESH, ranks=2)
    losses = [[line["lm_loss"] for line in read_metrics(run / "metrics.jsonl")] for run in (pretrained, two)]
    assert len(losses[0]) > 4 and losses[1] == pytest.approx(losses[0], rel=1e-4)
    stored = [rows_in(last(run)) for run in (pretrained, two)]
    assert stored[0].shape == (1 + 8, 32) and stored[0].any(1).sum() > 4
    assert stored[1].isclose(stored[0], rtol=1e-4, atol=1e-6).double().mean() > 0.99  # a sign may flip near zero
    carries = [read_part(last(run), "carry", read_record(last(run))) for run in (pretrained, two)]
    for key, value in carries[0].items():
        if key.endswith(("augmentations", "tasks", "inputs")):
            assert value.equal(carries[1][key]), key


def test_a_resumed_run_is_the_straight_run(small_data: Path, pretrained: Path, tmp_path: Path) -> None:
    run = pretrain(small_data, tmp_path / "run", *PRETRAINING, *FRESH, "epochs=2")
    pretrain(small_data, run, *PRETRAINING, *FRESH)
    for part in read_record(last(pretrained)).files:
        name = part.removesuffix(".safetensors")
        mine, theirs = (read_part(last(path), name, read_record(last(path))) for path in (run, pretrained))
        assert mine.keys() == theirs.keys()
        assert all(value.equal(theirs[key]) for key, value in mine.items()), part


def test_new_tasks_are_fine_tuned_voted_on_exported_and_solved(pretrained: Path, tmp_path: Path) -> None:
    """Other tasks than those trained on, under augmentations that nothing has seen; early exit too."""
    rng = np.random.default_rng(9)
    prefix = write_kaggle(tmp_path, "new", [random_task(f"new{i}", rng, test=2) for i in range(3)])
    data = tmp_path / "new"
    built = run_script(
        *("build_dataset.py", "--input-file-prefix", prefix, "--output-dir", str(data), "--subsets", "new"),
        *("--test-set-name", "new", "--num-aug", "6", "--max-grid-size", "6"),
    )
    assert built.returncode == 0, built.stderr
    tuned = tmp_path / "tuned"
    common = (*("eval_arc_k10.py", f"data_paths=[{data}]", f"checkpoint_path={tuned}"), *RUN)
    done = run_script(*common, f"load_checkpoint={pretrained}", "epochs=8", "eval_interval=8", "early_exit=2", *FRESH)
    assert done.returncode == 0, done.stderr
    assert "task rows set to the mean of" in done.stdout
    (folder,) = tuned.glob("evaluation_step_*")
    check_submission(json.loads((folder / "submission.json").read_text()), open_test_tasks(data), 10)
    scores = json.loads((folder / "scores.json").read_text())
    assert (scores["ARC/tasks"], scores["ARC/predictions"]) == (3, 3 * 2 * 7)
    assert (tuned / "report.html").is_file()
    assert scores["conditions"]["tasks"] is None and len(read_saved_run(tuned)[1]["tasks"]) == 3

    # The rows of these tasks serve the same tasks under other augmentations.
    more = tmp_path / "more"
    built = run_script(
        *("build_dataset.py", "--input-file-prefix", prefix, "--output-dir", str(more), "--subsets", "new"),
        *("--test-set-name", "new", "--num-aug", "9", "--max-grid-size", "6", "--seed", "5"),
    )
    assert built.returncode == 0, built.stderr
    voted = run_script(
        *("eval_arc_k10.py", f"data_paths=[{more}]", f"load_checkpoint={tuned}", "epochs=0", *RUN),
        f"checkpoint_path={tmp_path / 'voted'}",
    )
    assert voted.returncode == 0, voted.stderr
    assert "task rows kept" in voted.stdout and "60 predictions" in voted.stdout

    # More votes than puzzles are stored: drawn, the same on two ranks, and counted again from the file.
    many = []
    for ranks in (1, 2):
        out = tmp_path / f"many{ranks}"
        voted = run_script(
            *("eval_arc_k10.py", f"data_paths=[{more}]", f"load_checkpoint={tuned}", "epochs=0", *RUN),
            *(f"checkpoint_path={out}", "vote_augmentations=15"),
            ranks=ranks,
        )
        assert voted.returncode == 0, voted.stderr
        assert "90 predictions" in voted.stdout  # 3 tasks, 2 inputs
        (folder,) = out.glob("evaluation_step_*")
        many.append(Predictions.load(folder / "predictions.npz"))
    assert np.array_equal(many[0].augmentations, many[1].augmentations) and many[0].augmentations.any(1).sum() == 30
    assert np.array_equal(many[0].tokens, many[1].tokens)
    submission = json.loads((folder / "submission.json").read_text())
    recount(more, [folder / "predictions.npz"], tmp_path / "recounted", 10, "votes")
    assert json.loads((tmp_path / "recounted" / "submission.json").read_text()) == submission

    exported = run_script("-m", "training.export", str(pretrained), str(tmp_path / "shared"), "--format", "folder")
    assert exported.returncode == 0, exported.stderr
    solver = Solver.load(tmp_path / "shared", global_batch_size=4, fresh_augmentations=True)
    attempts = solver.predict(random_task("own", rng).to_json(), augmentations=2, finetune_steps=2)
    assert len(attempts) == 1


def test_the_plan_counts_rows_of_tasks_and_formats_without_grids_are_refused(small_data: Path, tmp_path: Path) -> None:
    common = (*("pretrain_no_eval.py", f"data_paths=[{small_data}]", "epochs=2", "dry_run=true"), *SMALL)
    composed = ("arch.puzzle_embedding=composed", "arch.puzzle_emb_len=11")
    for more, rows in (((), 41 * 32), (composed, 9 * 32)):
        done = run_script(*common, *more)
        assert done.returncode == 0, done.stderr
        assert f"puzzle rows {rows * 4 / 1e6:.2f} MB" in done.stdout
    refused = run_script(*common, *FRESH)
    assert refused.returncode == 2 and "no table has a row for" in refused.stderr
