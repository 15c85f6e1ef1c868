"""Prediction, knobs and the time budget of test-time fine-tuning."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dataset.sampling.joined import Batch
from dataset.storage import open_catalog, open_split, open_test_tasks
from evaluators import exact, report, scores, submission, tools
from evaluators import time_split as budgets
from evaluators.inference.gather import in_rounds
from evaluators.inference.predict import predict, predict_in_rounds
from evaluators.inference.predictions import Predictions
from evaluators.voting import count_votes
from models.act import ACTStep, initial_carry
from tests.builders.programs import start, wait_for
from tests.builders.runs import LONG, last
from tests.builders.states import STEPS, predicting_state
from tests.conftest import SMALL, run_script
from training.state import TrainState
from training.step import to_slots
from utils.timers import Deadline


@pytest.fixture
def state(small_data: Path) -> TrainState:
    return predicting_state(small_data)


def step_by_step(state: TrainState, data: Path, steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [steps, N, C] and halting logits [steps, N] of every test example, by the training step in evaluation
    mode, one example at a time."""
    split = open_split(data, "test")
    step = ACTStep(state.network, 0).eval()
    all_tokens, all_halts = [], []
    for example in range(split.num_examples):
        inputs, labels = split.read(np.array([example]))
        puzzle = np.searchsorted(split.puzzle_indices, example, side="right") - 1
        slots = to_slots(Batch(inputs, labels, split.puzzle_identifiers[[puzzle]]), state.device)
        rows = state.table.weights[slots.puzzle_identifiers.long()]  # type: ignore[union-attr]
        carry, tokens, halts = initial_carry(state.network, slots), [], []
        with torch.no_grad():
            for _ in range(steps):
                carry, _, _, out = step(carry, slots, rows, None, state.network.places(*state.shape.whole))
                carry = carry._replace(halted=torch.zeros_like(carry.halted))
                tokens.append(out.logits.argmax(-1)[0].numpy())
                halts.append(float(out.q_halt[0]))
        all_tokens.append(tokens)
        all_halts.append(halts)
    return np.array(all_tokens).swapaxes(0, 1), np.array(all_halts).T


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_predictions_are_those_of_the_last_step(state: TrainState, small_data: Path, batch_size: int) -> None:
    tokens, halts = step_by_step(state, small_data)
    split = open_split(small_data, "test")
    found = predict(state, split, batch_size)
    assert found is not None and len(found) == split.num_examples
    assert np.array_equal(found.tokens, tokens[-1])
    np.testing.assert_allclose(found.q_halt, halts[-1], rtol=1e-4, atol=1e-5)
    assert (found.steps == STEPS).all()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_early_exit_is_the_first_step_that_halts(state: TrainState, small_data: Path, batch_size: int) -> None:
    """Whoever shares the batch, and in whatever slot: the answer of the first step whose logit is positive."""
    tokens, halts = step_by_step(state, small_data)
    first = np.where((halts > 0).any(0), (halts > 0).argmax(0), STEPS - 1)
    assert len(set(first)) > 1, "the test needs examples that halt at different steps"
    (*_, found) = predict_in_rounds(state, open_split(small_data, "test"), batch_size, early_exit="halt")
    assert found is not None
    assert np.array_equal(found.steps, first + 1)
    assert np.array_equal(found.tokens, tokens[first, np.arange(len(first))])


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_early_exit_after_equal_answers_in_a_row(state: TrainState, small_data: Path, batch_size: int) -> None:
    """The first step whose answer is also that of the step before it, never of the slot's last example."""
    most = 12
    with torch.no_grad():
        for weight in state.network.L_level.parameters():  # small ones, so that the latents come to rest
            weight.mul_(0.2)
    tokens, _ = step_by_step(state, small_data, most)
    equal = (tokens[1:] == tokens[:-1]).all(-1)
    first = np.where(equal.any(0), equal.argmax(0) + 1, most - 1)
    assert len(set(first)) > 1, "the test needs examples that come to rest at different steps"
    (*_, found) = predict_in_rounds(state, open_split(small_data, "test"), batch_size, early_exit=2, max_steps=most)
    assert found is not None
    assert np.array_equal(found.steps, first + 1)
    assert np.array_equal(found.tokens, tokens[first, np.arange(len(first))])


@pytest.mark.parametrize("early_exit", [False, "halt"])
@pytest.mark.parametrize("batch_size", [3, 64])
def test_answers_of_the_last_steps_are_saved_in_order(
    state: TrainState, small_data: Path, early_exit: Any, batch_size: int
) -> None:
    tokens, halts = step_by_step(state, small_data)
    split = open_split(small_data, "test")
    (*_, alone) = predict_in_rounds(state, split, batch_size, early_exit=early_exit)
    (*_, found) = predict_in_rounds(state, split, batch_size, early_exit=early_exit, vote_steps=3)
    assert found is not None and alone is not None
    wanted = [(e, s) for e, last in enumerate(alone.steps) for s in range(max(1, last - 2), last + 1)]
    examples, steps = np.array(wanted).T
    assert np.array_equal(found.steps, steps)
    assert np.array_equal(found.tokens, tokens[steps - 1, examples])
    np.testing.assert_allclose(found.q_halt, halts[steps - 1, examples], rtol=1e-4, atol=1e-5)
    for name, values in vars(found.last(1)).items():
        assert np.array_equal(values, getattr(alone, name)), name


def test_prediction_computes_no_loss_and_fetches_once_per_batch(
    state: TrainState, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a loss")

    monkeypatch.setattr("models.act.step_loss", refuse)
    fetched: list[str] = []
    fetch = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: fetched.append(str(self.dtype)) or fetch(self))

    class Waits(TorchDispatchMode):
        """Operations that wait for the device: a value for Python, or a shape that depends on values."""

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = function.overloadpacket.__name__
            assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "equal"), name
            return function(*args, **(kwargs or {}))

    split = open_split(small_data, "test")
    with Waits():
        (*_, found) = predict_in_rounds(state, split, 4)
    assert found is not None
    assert fetched == ["torch.uint8", "torch.float32"] * -(-split.num_examples // 4), "not at each of the steps"


def test_fewer_steps_are_those_of_the_beginning(state: TrainState, small_data: Path) -> None:
    tokens, _ = step_by_step(state, small_data)
    (*_, found) = predict_in_rounds(state, open_split(small_data, "test"), 8, max_steps=2)
    assert found is not None and np.array_equal(found.tokens, tokens[1])


def test_rounds_begin_with_the_tasks_themselves(small_data: Path) -> None:
    split, catalog = open_split(small_data, "test"), open_catalog(small_data)
    order, first = in_rounds(split)
    assert sorted(order) == list(range(split.num_examples))
    puzzles = np.searchsorted(split.puzzle_indices, order, side="right") - 1
    names = [catalog.name(int(i)) for i in split.puzzle_identifiers[puzzles]]
    assert ["|||" in name for name in names[:first]] == [False] * 4
    assert all("|||" in name for name in names[first:])


def test_stopped_at_once_every_input_has_the_first_votes(state: TrainState, small_data: Path) -> None:
    split = open_split(small_data, "test")
    reports = list(predict_in_rounds(state, split, 4, until=time.monotonic() - 1))
    found = reports[-1]
    assert found is not None and 4 <= len(found) < split.num_examples
    assert {(int(i), int(t)) for i, t in zip(found.puzzle_identifiers[:4], found.test_index[:4], strict=True)}
    everything = predict(state, split, 4)
    assert everything is not None
    sizes = [len(report) for report in predict_in_rounds(state, split, 4) if report is not None]
    assert sizes == sorted(sizes) and sizes[0] == 4 and sizes[-1] == len(everything)


def test_time_counts_from_the_start_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = "from utils.timers import seconds_since_start as since; print(since())"
    code = f"import subprocess, sys, time; time.sleep(1); subprocess.run([sys.executable, '-c', {inner!r}])"
    for launched, least in (("", 0.0), ("TORCHELASTIC_RUN_ID", 1.0)):
        with monkeypatch.context() as patch:
            if launched:
                patch.setenv(launched, "x")
            started = time.monotonic()
            done = run_script("-c", code)
            took = time.monotonic() - started
        assert least <= float(done.stdout) <= took, done.stderr
        assert launched or float(done.stdout) < took - 0.9


def test_time_is_divided() -> None:
    sizes: dict[str, Any] = {"predictions": 0, "state_bytes": 0, "submit": 0}
    start = time.monotonic()

    def divided(seconds: float, everything: float, first: float, start_up: float = 0) -> tuple[float, float]:
        times = {"predict_all": everything, "predict_first": first, "start_up": start_up}
        shares = budgets.divide(Deadline(start + seconds), **times, **sizes)
        return (shares.training or start) - start, shares.prediction - start

    training, prediction = divided(101, 10, 1)
    assert training == pytest.approx(100 - 12.5, abs=0.2) and prediction == pytest.approx(100, abs=0.2)
    training, _ = divided(101, 1000, 1)
    assert training == pytest.approx(59, abs=0.2)  # not more than its share for more votes
    training, _ = divided(101, 1000, 70)
    assert training == pytest.approx(100 - 92, abs=0.2)  # but every input is to have one
    training, prediction = divided(1, 1000, 70)
    assert training == 0 and prediction == pytest.approx(0, abs=0.2)
    assert divided(101, 1000, 1, start_up=50)[0] == pytest.approx(59, abs=0.2)
    assert divided(101, 1000, 1, start_up=70)[0] == 0  # it would end before it has begun


def evaluation_of(folder: Path) -> Path:
    (path,) = folder.glob("evaluation_step_*")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_with_a_budget_ends_in_time_and_is_valid_at_every_moment(
    ranks: int, small_data: Path, tmp_path: Path
) -> None:
    seconds = 20 if ranks == 1 else 35  # torchrun and two ranks start up within it
    tasks = open_test_tasks(small_data)
    started = time.monotonic()
    process = start(
        *("eval_arc_k10.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path}", "epochs=100000"),
        *("eval_interval=100000", "puzzle_rows=zero", f"time_budget={seconds / 60}", *SMALL, "log_every=50"),
        ranks=ranks,
    )
    wait_for((tmp_path / "submission.json").exists)
    looked = 0
    while process.poll() is None:
        submission.validate(json.loads((tmp_path / "submission.json").read_text()), tasks, 10)
        looked += 1
        time.sleep(0.05)
    took = time.monotonic() - started
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert looked > 20
    assert took < 1.05 * seconds + 5
    assert took > 0.6 * seconds  # and the time is used
    assert int(last(tmp_path).name.split("_")[1]) > 5
    built = json.loads((tmp_path / "submission.json").read_text())
    assert built == json.loads((evaluation_of(tmp_path) / "submission.json").read_text())
    record = json.loads((evaluation_of(tmp_path) / "scores.json").read_text())
    assert record["ARC/predictions"] == 20 and record["conditions"]["step"] > 5


@pytest.mark.slow
@pytest.mark.long
def test_killed_at_any_time_a_valid_submission_is_there(small_data: Path, tmp_path: Path) -> None:
    tasks = open_test_tasks(small_data)
    delays = [0.0, *np.random.default_rng().uniform(0, 11, 30 if LONG else 3)]
    for i, delay in enumerate(delays):
        print(f"killed {delay:.2f} s after its first submission")
        folder = tmp_path / str(i)
        process = start(
            *("eval_arc_k10.py", f"data_paths=[{small_data}]", f"checkpoint_path={folder}", "epochs=100000"),
            *("eval_interval=100000", "puzzle_rows=zero", "time_budget=0.2", *SMALL),
        )
        wait_for((folder / "submission.json").exists)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for name, attempts in (("submission.json", 10), ("submission_kaggle.json", 2)):
            if name == "submission.json" or delay > 0.5:  # the second one follows the first
                submission.validate(json.loads((folder / name).read_text()), tasks, attempts)


def test_fewer_votes_fewer_tasks(small_data: Path, tmp_path: Path) -> None:
    done = run_script(
        *(
            "eval_arc_k10.py",
            f"data_paths=[{small_data}]",
            f"checkpoint_path={tmp_path}",
            "epochs=4",
            "eval_interval=4",
        ),
        *("finetune_on=test_tasks", "puzzle_rows=zero", *SMALL, "tasks=[eval1]", "vote_augmentations=2"),
        *("train_augmentations=1", "eval_halt_max_steps=1", "early_exit=true", "global_batch_size=2"),
    )
    assert done.returncode == 0, done.stderr
    found = Predictions.load(evaluation_of(tmp_path) / "predictions.npz")
    assert len(found) == 2 * 2 and (found.steps == 1).all()
    assert list(json.loads((tmp_path / "submission.json").read_text())) == ["eval1"]
    record = json.loads((evaluation_of(tmp_path) / "scores.json").read_text())
    assert record["ARC/votes_per_input"] <= 2
    assert (record["ARC/checkpoints"], record["ARC/steps_per_prediction"]) == (1, 1.0)
    assert record["conditions"]["early_exit"] == "halt" and record["conditions"]["pooled"] == []
    done = run_script(
        *("eval_arc_k10.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path / 'x'}", "epochs=4"),
        *("eval_interval=4", *SMALL, "tasks=[train1]"),
    )
    assert done.returncode == 2 and "tasks=train1 is no test task" in done.stderr


@pytest.mark.parametrize("batch_size", [4, 64])
def test_right_answers_are_counted_where_time_cut_prediction(
    state: TrainState, small_data: Path, tmp_path: Path, batch_size: int
) -> None:
    split = open_split(small_data, "test")
    (*_, found) = predict_in_rounds(state, split, batch_size, until=time.monotonic() - 1)
    assert found is not None
    examples = np.sort(in_rounds(split)[0][: len(found)])
    found.tokens = split.read(examples)[1]  # as if all were right
    metrics = exact.evaluate(found, split, tmp_path, {}, examples)
    assert metrics["exact/examples"] == len(found) == 4  # the first round
    assert metrics["exact/exact_accuracy"] == 1.0 and metrics["exact/steps_per_example"] == STEPS
    puzzles = np.searchsorted(split.puzzle_indices, examples, side="right") - 1
    assert np.array_equal(found.puzzle_identifiers, split.puzzle_identifiers[puzzles])


def test_votes_of_several_checkpoints_and_steps_count_together(small_data: Path, tmp_path: Path) -> None:
    done = run_script(
        *("eval_arc_k10.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path}", "epochs=12"),
        *("eval_interval=4", "finetune_on=test_tasks", "puzzle_rows=zero", *SMALL, "pool_checkpoints=2"),
        *("vote_steps=2", "ranking=sum_halt"),
    )
    assert done.returncode == 0, done.stderr
    folders = scores.evaluations(tmp_path)
    assert len(folders) == 3
    records = [json.loads((folder / "scores.json").read_text()) for folder in folders]
    assert [record["conditions"]["pooled"] for record in records] == [[], [folders[0].name], [folders[1].name]]
    assert [record["ARC/checkpoints"] for record in records] == [1, 2, 2]
    assert [record["ARC/predictions"] for record in records] == [20 * 2, 2 * 20 * 2, 2 * 20 * 2]
    assert all(record["ARC/steps_per_prediction"] == 2.5 for record in records)
    # the submission is what a recount of those files gives, and the page counts the same votes
    files = [folder / "predictions.npz" for folder in folders[1:]]
    tools.recount(small_data, files, tmp_path / "again", 10, "sum_halt")
    for name in ("submission.json", "submission_kaggle.json"):
        assert (tmp_path / name).read_text() == (tmp_path / "again" / name).read_text()
    shown = {task["id"]: task["test"] for task in report.described_run(tmp_path)[1]["tasks"]}
    votes = count_votes(Predictions.joined([Predictions.load(file) for file in files]), open_catalog(small_data))
    assert {key: shown[key[0]][key[1]]["votes"] for key in votes} == {
        key: sum(candidate.votes for candidate in candidates) for key, candidates in votes.items()
    }
