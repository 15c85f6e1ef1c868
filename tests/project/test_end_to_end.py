"""The whole path as a user takes it: tasks -> data set -> pretraining -> fine-tuning -> votes -> submission."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.storage import open_test_tasks
from evaluators import tools
from evaluators.inference.predictions import Predictions
from evaluators.submission import check_submission
from tests.builders.programs import run_process
from tests.builders.runs import everything_in, rows_in
from tests.conftest import SMALL, random_task, run_script, write_kaggle
from utils.metrics_log import read_metrics


@pytest.fixture(scope="module")
def pretrained(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    done = run_script(
        *("pretrain_no_eval.py", "arch=trm", f"data_paths=[{small_data}]", f"+checkpoint_path={folder}"),
        *("evaluators=[]", "epochs=4", "eval_interval=2", "ema=True", *SMALL),
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_pretraining_leaves_its_run(pretrained: Path) -> None:
    lines = read_metrics(pretrained / "metrics.jsonl")
    checkpoints = sorted(int(path.name.split("_")[1]) for path in pretrained.glob("step_*"))
    assert [line["step"] for line in lines] == list(range(1, checkpoints[-1] + 1))
    assert len(checkpoints) == 2
    assert {"lm_loss", "accuracy", "exact_accuracy", "lr"} <= lines[-1].keys()


def test_fine_tuning_to_submission(pretrained: Path, small_data: Path, tmp_path: Path) -> None:
    """On one rank and on two: valid submissions, which are the votes of predictions that are the same."""
    last = max(pretrained.glob("step_*"), key=lambda path: int(path.name.split("_")[1]))
    submissions, found = {}, {}
    for ranks in (1, 2):
        run = tmp_path / str(ranks)
        done = run_script(
            *(
                "eval_arc_k10.py",
                f"data_paths=[{small_data}]",
                f"+load_checkpoint={last}",
                "epochs=8",
                "eval_interval=4",
            ),
            *("ema=True", f"+checkpoint_path={run}", "finetune_on=test_tasks", *SMALL),
            ranks=ranks,
        )
        assert done.returncode == 0, done.stderr
        folders = sorted(run.glob("evaluation_step_*"))
        assert len(folders) == 2
        tasks = open_test_tasks(small_data)
        for name, attempts in (("submission.json", 10), ("submission_kaggle.json", 2)):
            check_submission(json.loads((folders[-1] / name).read_text()), tasks, attempts)
        scores = json.loads((folders[-1] / "scores.json").read_text())
        assert (scores["ARC/tasks"], scores["ARC/test_inputs"], scores["ARC/predictions"]) == (2, 4, 4 * 5)
        submissions[ranks] = json.loads((folders[-1] / "submission.json").read_text())
        found[ranks] = Predictions.load(folders[-1] / "predictions.npz")
        tools.recount(small_data, [folders[-1] / "predictions.npz"], run / "recount", attempts=10, ranking="votes")
        assert submissions[ranks] == json.loads((run / "recount" / "submission.json").read_text())
    for rows in ("puzzle_identifiers", "test_index"):
        assert np.array_equal(getattr(found[1], rows), getattr(found[2], rows))
    assert (found[1].tokens == found[2].tokens).mean() > 0.99  # of the cells; float32 rounding may change one


def test_ranks_see_the_same_batches_and_losses(small_data: Path, tmp_path: Path) -> None:
    losses = {}
    for ranks in (1, 2, 4):
        folder = tmp_path / str(ranks)
        done = run_script(
            *("pretrain_no_eval.py", f"data_paths=[{small_data}]", f"checkpoint_path={folder}", "epochs=2", *SMALL),
            ranks=ranks,
        )
        assert done.returncode == 0, done.stderr
        losses[ranks] = [line["lm_loss"] for line in read_metrics(folder / "metrics.jsonl")]
    assert len(losses[1]) > 2
    assert losses[2] == pytest.approx(losses[1], rel=1e-4)
    assert losses[4] == pytest.approx(losses[1], rel=1e-4)
    rows = {}
    for ranks in (1, 2, 4):
        path = max((tmp_path / str(ranks)).glob("step_*"))
        rows[ranks] = rows_in(path)
    for ranks in (2, 4):  # a sign may flip where a sum is almost zero
        assert rows[ranks].isclose(rows[1], rtol=1e-4, atol=1e-6).double().mean() > 0.99


def test_epochs_0_refuses_other_puzzles(pretrained: Path, small_data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    prefix = write_kaggle(tmp_path, "evaluation2", [random_task(f"eval{i}", rng) for i in range(2)])
    other = tmp_path / "other"
    assert (
        run_script(
            *("build_dataset.py", "--input-file-prefix", prefix, "--output-dir", str(other), "--num-aug", "3"),
            *("--subsets", "evaluation2", "--test-set-name", "evaluation2", "--max-grid-size", "6"),
        ).returncode
        == 0
    )
    last = max(pretrained.glob("step_*"), key=lambda path: int(path.name.split("_")[1]))
    done = run_script(
        *("eval_arc_k10.py", f"data_paths=[{other}]", f"+load_checkpoint={last}", "epochs=0"),
        *("ema=True", f"+checkpoint_path={tmp_path / 'run'}", *SMALL),
    )
    assert done.returncode == 2
    assert "other puzzles" in done.stderr
    assert "Traceback" not in done.stderr


def test_under_torchrun_an_error_is_still_one_sentence(small_data: Path, tmp_path: Path) -> None:
    """Rank 0 gets to say it before another rank's end makes torchrun kill it."""
    done = run_process(
        "pretrain_no_eval.py", f"data_paths=[{small_data}]", "epochs=5", "eval_interval=2", *SMALL, ranks=2
    )
    assert done.returncode != 0
    assert done.stderr.count("error: epochs=5 is not a multiple of eval_interval=2") == 1


def test_resumed_run_is_the_straight_run(pretrained: Path, small_data: Path, tmp_path: Path) -> None:
    """Two intervals without a stop, and one interval, stopped, then the second: the same weights, bit for bit."""
    straight, halved = pretrained, tmp_path / "halved"
    common = ("pretrain_no_eval.py", f"data_paths=[{small_data}]", "ema=True", "eval_interval=2", "epochs=4", *SMALL)
    steps = sorted(int(path.name.split("_")[1]) for path in straight.glob("step_*"))
    # The second interval is undone, as if the run had been killed in it.
    shutil.copytree(straight, halved)
    shutil.rmtree(halved / f"step_{steps[1]}")
    done = run_script(*common, f"checkpoint_path={halved}")
    assert done.returncode == 0, done.stderr
    assert f"resumed from {halved / f'step_{steps[0]}'}" in done.stdout
    paths = [folder / f"step_{steps[1]}" for folder in (straight, halved)]
    one, two = (everything_in(path) for path in paths)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert value.equal(two[name]), name
    assert [line["step"] for line in read_metrics(halved / "metrics.jsonl")] == list(range(1, steps[1] + 1))


def test_published_commands_run_as_written(small_data: Path, tmp_path: Path) -> None:
    """The commands that users of the published code have, but for sizes; the first under its launcher."""
    launcher = (
        "--standalone",
        "--nnodes=1",
        "--nproc-per-node",
        "2",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=localhost:0",
    )
    checkpoints, evaluated = tmp_path / "checkpoint", tmp_path / "checkpoint-eval"
    done = run_process(
        *("-m", "torch.distributed.run", *launcher, "pretrain_no_eval.py", "arch=trm", f"data_paths=[{small_data}]"),
        *("arch.L_layers=2", "arch.H_cycles=3", "arch.L_cycles=4", "ema=True", "evaluators=[]", "lr=0.0003"),
        *(
            f"+checkpoint_path={checkpoints}",
            "global_batch_size=8",
            "eval_interval=1",
            "epochs=2",
            *SMALL[:2],
            *SMALL[4:],
        ),
    )
    assert done.returncode == 0, done.stderr
    last = max(checkpoints.glob("step_*"), key=lambda path: int(path.name.split("_")[1]))
    done = run_script(
        *("eval_arc_k10.py", "arch=trm", f"data_paths=[{small_data}]"),
        *("arch.L_layers=2", "arch.H_cycles=4", "arch.L_cycles=4", f"+load_checkpoint={last}", "eval_interval=2"),
        *("epochs=2", "ema=True", f"+checkpoint_path={evaluated}", "lr_warmup_steps=200", "lr=0.0001"),
        *(*SMALL[:2], *SMALL[4:8], *SMALL[9:], "arch.halt_max_steps=2"),
        ranks=2,
    )
    assert done.returncode == 0, done.stderr
    assert "puzzle rows set to the mean" in done.stdout
    assert "arch.H_cycles: 3 there, 4 here" in done.stdout
    (folder,) = evaluated.glob("evaluation_step_*")
    check_submission(json.loads((folder / "submission.json").read_text()), open_test_tasks(small_data), 10)


def test_scoring_tasks_that_were_trained_on_is_warned_of(small_data: Path, tmp_path: Path) -> None:
    """Trained on whole under other names, and on the demonstrations alone."""
    rng = np.random.default_rng(0)
    trained = [random_task(f"train{i}", rng) for i in range(6)]  # as small_data makes them
    tested = [random_task(f"eval{i}", rng, test=2) for i in range(2)]
    write_kaggle(tmp_path, "renamed", [replace(task, id=f"other-{task.id}") for task in tested])
    prefix = write_kaggle(tmp_path, "held", trained[:1])
    built = run_script(
        *("build_dataset.py", "--input-file-prefix", prefix, "--output-dir", str(tmp_path / "set")),
        *("--subsets", "renamed", "held", "--test-set-name", "held", "--num-aug", "4", "--max-grid-size", "6"),
    )
    assert built.returncode == 0, built.stderr
    for data, said in ((tmp_path / "set", "the test outputs of 2 of the 2 tasks"), (small_data, "of 2 of the 2 tasks")):
        run = tmp_path / f"run-{data.name}-{data == small_data}"
        assert (
            run_script(
                "pretrain_no_eval.py", f"data_paths=[{data}]", "epochs=4", f"checkpoint_path={run}", *SMALL
            ).returncode
            == 0
        )
        done = run_script(
            *("eval_arc_k10.py", f"data_paths=[{small_data}]", f"load_checkpoint={run}", "epochs=4", "eval_interval=4"),
            *("finetune_on=test_tasks", "puzzle_rows=mean", f"checkpoint_path={run}-eval", *SMALL),
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
        assert ("mean nothing" in done.stdout) == (data != small_data)


def test_several_data_sets_are_trained_together(small_data: Path, tmp_path: Path) -> None:
    """The second one's identifiers begin after the first one's; rows of both learn, and only theirs."""
    rng = np.random.default_rng(5)
    prefix = write_kaggle(tmp_path, "more", [random_task(f"more{i}", rng) for i in range(3)])
    built = run_script(
        *("build_dataset.py", "--input-file-prefix", prefix, "--output-dir", str(tmp_path / "second")),
        *("--subsets", "more", "--test-set-name", "more", "--num-aug", "4", "--max-grid-size", "6"),
        *("--puzzle-identifiers-start", "100"),
    )
    assert built.returncode == 0, built.stderr
    common = (*("pretrain_no_eval.py", "epochs=8", f"checkpoint_path={tmp_path / 'run'}"), *SMALL)
    done = run_script(*common, f"data_paths=[{small_data},{tmp_path / 'second'}]")
    assert done.returncode == 0, done.stderr
    path = max((tmp_path / "run").glob("step_*"))
    rows = rows_in(path)
    learnt = (rows != 0).any(1).nonzero().flatten().tolist()
    assert len(rows) == 115
    assert [i for i in learnt if i <= 40] and [i for i in learnt if i >= 100]
    assert not [i for i in learnt if 40 < i < 100]
    refused = run_script(*common, f"data_paths=[{small_data},{small_data}]", f"checkpoint_path={tmp_path / 'x'}")
    assert refused.returncode == 2 and "--puzzle-identifiers-start 41" in refused.stderr


def test_sudoku_and_mazes_are_trained_and_scored(tmp_path: Path) -> None:
    for kind, more in (("sudoku", ("--size", "4")), ("maze", ("--size", "9"))):
        built = run_script(
            *("build_dataset.py", kind, *more, "--subsample-size", "40", "--test-size", "10"),
            *("--output-dir", str(tmp_path / kind)),
        )
        assert built.returncode == 0, built.stderr
        run = tmp_path / f"{kind}-run"
        done = run_script(
            *(
                "eval_arc_k10.py",
                f"data_paths=[{tmp_path / kind}]",
                "evaluators=[exact]",
                "puzzle_rows=zero",
                "epochs=4",
            ),
            *("eval_interval=2", f"checkpoint_path={run}", *SMALL),
        )
        assert done.returncode == 0, done.stderr
        assert len(list(run.glob("evaluation_step_*/scores.json"))) == 2
        found = json.loads((max(run.glob("evaluation_step_*")) / "scores.json").read_text())
        assert found["exact/examples"] <= 10 and 0 < found["exact/accuracy"] < 1
        refused = run_script(
            *(
                "eval_arc_k10.py",
                f"data_paths=[{tmp_path / kind}]",
                "epochs=4",
                f"checkpoint_path={tmp_path / 'x'}",
                *SMALL,
            )
        )
        assert refused.returncode == 2 and "has no ARC tasks" in refused.stderr
        assert not (tmp_path / "x").exists()


def test_urm_goes_from_data_to_a_solved_puzzle(small_data: Path, tmp_path: Path) -> None:
    """On several canvases, through a resumed pretraining and an exported folder, to fine-tuning and a puzzle."""
    run, shared, tuned = (tmp_path / name for name in ("run", "shared", "tuned"))
    small = (*SMALL, "arch=urm", "arch.L_layers=1", "canvases=[[4,4],[6,6]]", "ema=True", f"data_paths=[{small_data}]")
    for epochs in (2, 4):
        done = run_script(
            *("pretrain_no_eval.py", f"checkpoint_path={run}", f"epochs={epochs}", "eval_interval=2", *small)
        )
        assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stdout
    exported = run_script("-m", "training.export", str(run), str(shared), "--format", "folder")
    assert exported.returncode == 0, exported.stderr
    assert "| convolution in the SwiGLU | raster2 |" in (shared / "README.md").read_text()
    done = run_script(
        *("eval_arc_k10.py", f"load_checkpoint={shared}", f"checkpoint_path={tuned}", "epochs=2", "eval_interval=2"),
        *small,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tuned.glob("evaluation_step_*/submission.json"))) == 1
    puzzle = tmp_path / "puzzle.json"
    puzzle.write_text(json.dumps(random_task("own", np.random.default_rng(0)).to_json()))
    solved = run_script(
        *("solve.py", str(puzzle), "--weights", str(shared), "--out", str(tmp_path / "answer.png")),
        *("--augmentations", "2", "--steps", "2", "--settings", "device=cpu", "compile=false"),
    )
    assert solved.returncode == 0, solved.stderr
    assert json.loads((tmp_path / "answer.attempts.json").read_text())


@pytest.mark.slow
def test_a_run_on_the_whole_evaluation_set_submits_every_input(tmp_path: Path) -> None:
    """120 tasks and 172 entries, each in its place."""
    data, run = tmp_path / "data", tmp_path / "run"
    assert run_script("build_dataset.py", "--num-aug", "0", "--output-dir", str(data)).returncode == 0
    tiny = ("arch.H_cycles=1", "arch.L_cycles=1", "arch.L_layers=1", "arch.halt_max_steps=1", *SMALL[:2], *SMALL[5:])
    done = run_script(
        *("eval_arc_k10.py", f"data_paths=[{data}]", "epochs=1", "finetune_on=test_tasks", "puzzle_rows=zero"),
        *(f"checkpoint_path={run}", *tiny, "global_batch_size=16"),
        ranks=2,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = run.glob("evaluation_step_*")
    built, tasks = json.loads((folder / "submission.json").read_text()), open_test_tasks(data)
    check_submission(built, tasks, 10)
    check_submission(json.loads((folder / "submission_kaggle.json").read_text()), tasks, 2)
    assert list(built) == sorted(tasks)
    assert (len(built), sum(map(len, built.values()))) == (120, 172)
    scores = json.loads((folder / "scores.json").read_text())
    assert (scores["ARC/tasks"], scores["ARC/test_inputs"], scores["ARC/predictions"]) == (120, 172, 172)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lrr=0.1", "did you mean 'lr'"),
        ("+arch.hiden_size=3", "did you mean 'arch.hidden_size'"),
        ("lr=fast", "lr='fast'"),
        ("evaluators=[arc]", "eval_arc_k10.py"),
        ("epochs=5", "not a multiple of eval_interval"),
        ("data_paths=[nowhere]", "nowhere is not a data set folder"),
        ("global_batch_size=100000", "fewer examples than one batch"),
    ],
)
def test_bad_settings_end_in_a_sentence(small_data: Path, tmp_path: Path, override: str, said: str) -> None:
    done = run_script(
        *("pretrain_no_eval.py", f"data_paths=[{small_data}]", "epochs=4", "eval_interval=2", *SMALL),
        *(f"checkpoint_path={tmp_path / 'run'}", override),
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
