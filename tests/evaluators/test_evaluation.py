"""Prediction, knobs and the time budget of test-time fine-tuning."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import eval_arc_k10
from dataset.sampling.joined import Batch
from dataset.storage import fingerprints, open_catalog, open_split, open_test_tasks
from evaluators import scores, tools
from evaluators.arc import ArcScorer
from evaluators.evaluation import Evaluation
from evaluators.grid_puzzles.exact import ExactScorer
from evaluators.inference.engine import PredictionOptions
from evaluators.inference.gather import order_in_rounds
from evaluators.inference.predict import predict_all, predict_in_rounds
from evaluators.inference.predictions import Predictions, PredictionSnapshot
from evaluators.report.saved_run import read_saved_run
from evaluators.submission import check_submission, format_submissions
from evaluators.time_split import split_time
from evaluators.voting import Votes, count_votes
from models.act import ACTStep, initial_carry, refill
from tests.builders.networks import needs_recorded_draws
from tests.builders.programs import Running, RunningRanks, run_process, start, wait_for
from tests.builders.runs import LONG, last
from tests.builders.states import STEPS, TINY, predicting_state
from tests.conftest import SMALL, run_script
from training.config import EvalConfig
from training.state import TrainState
from training.step import to_slots
from utils.metrics_log import MetricsLog, read_metrics
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
                carry = refill(carry, slots, state.network.initial_latents())
                carry, _, _, out = step(carry, rows, None, state.network.positions_of(*state.shape.whole))
                carry = carry._replace(halted=torch.zeros_like(carry.halted))
                tokens.append(out.logits.argmax(-1)[0].numpy())
                halts.append(float(out.q_halt[0]))
        all_tokens.append(tokens)
        all_halts.append(halts)
    return np.array(all_tokens).swapaxes(0, 1), np.array(all_halts).T


def predict(state: TrainState, small_data: Path, batch_size: int, **settings: Any) -> Predictions:
    found = predict_all(state, open_split(small_data, "test"), PredictionOptions(batch_size, **settings))
    assert found is not None
    return found.predictions


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_predictions_are_those_of_the_last_step(state: TrainState, small_data: Path, batch_size: int) -> None:
    tokens, halts = step_by_step(state, small_data)
    found = predict(state, small_data, batch_size)
    assert len(found) == open_split(small_data, "test").num_examples
    assert np.array_equal(found.tokens, tokens[-1])
    np.testing.assert_allclose(found.q_halt, halts[-1], rtol=1e-4, atol=1e-5)
    assert (found.steps == STEPS).all()


@needs_recorded_draws
@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_early_exit_is_the_first_step_that_halts(state: TrainState, small_data: Path, batch_size: int) -> None:
    """Whoever shares the batch, and in whatever slot: the answer of the first step whose logit is positive."""
    tokens, halts = step_by_step(state, small_data)
    first = np.where((halts > 0).any(0), (halts > 0).argmax(0), STEPS - 1)
    assert len(set(first)) > 1, "the test needs examples that halt at different steps"
    found = predict(state, small_data, batch_size, early_exit="halt")
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
    found = predict(state, small_data, batch_size, early_exit=2, max_steps=most)
    assert np.array_equal(found.steps, first + 1)
    assert np.array_equal(found.tokens, tokens[first, np.arange(len(first))])


@pytest.mark.parametrize("early_exit", [False, "halt"])
@pytest.mark.parametrize("batch_size", [3, 64])
def test_answers_of_the_last_steps_are_saved_in_order(
    state: TrainState, small_data: Path, early_exit: Any, batch_size: int
) -> None:
    tokens, halts = step_by_step(state, small_data)
    alone = predict(state, small_data, batch_size, early_exit=early_exit)
    found = predict(state, small_data, batch_size, early_exit=early_exit, vote_steps=3)
    wanted = [(e, s) for e, last in enumerate(alone.steps) for s in range(max(1, last - 2), last + 1)]
    examples, steps = np.array(wanted).T
    assert np.array_equal(found.steps, steps)
    assert np.array_equal(found.tokens, tokens[steps - 1, examples])
    np.testing.assert_allclose(found.q_halt, halts[steps - 1, examples], rtol=1e-4, atol=1e-5)
    for name, values in vars(found.last(1)).items():
        assert np.array_equal(values, getattr(alone, name)), name


class CountsFetches(TorchDispatchMode):
    """Counts what is fetched from the device: copies to the host (here: any copy of a tensor to NumPy)."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            self.waits.append(name)
        return function(*args, **(kwargs or {}))


def test_prediction_computes_no_loss_and_fetches_nothing_at_a_step(
    state: TrainState, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of fetches does not grow with the number of steps, and no step waits for a value."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a loss")

    monkeypatch.setattr("models.act.step_loss", refuse)
    fetches = 0

    def counting(name: str) -> None:
        original = getattr(torch.Tensor, name)

        def fetch(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal fetches
            fetches += 1
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, fetch)

    for name in ("cpu", "numpy", "tolist", "item", "__bool__", "__int__", "__float__", "__array__"):
        counting(name)
    counts = {}
    for steps in (1, 2, 7):
        fetches = 0
        with CountsFetches() as mode:
            predict(state, small_data, 4, max_steps=steps)
        assert mode.waits == [], "operations that wait for the device"
        counts[steps] = fetches
    assert counts[1] == counts[2] == counts[7] > 0


def test_fewer_steps_are_those_of_the_beginning(state: TrainState, small_data: Path) -> None:
    tokens, _ = step_by_step(state, small_data)
    assert np.array_equal(predict(state, small_data, 8, max_steps=2).tokens, tokens[1])


def test_rounds_begin_with_the_tasks_themselves(small_data: Path) -> None:
    split, catalog = open_split(small_data, "test"), open_catalog(small_data)
    order, first = order_in_rounds(split)
    assert sorted(order) == list(range(split.num_examples))
    puzzles = np.searchsorted(split.puzzle_indices, order, side="right") - 1
    names = [catalog.name(int(i)) for i in split.puzzle_identifiers[puzzles]]
    assert ["|||" in name for name in names[:first]] == [False] * 4
    assert all("|||" in name for name in names[first:])


def test_stopped_at_once_every_input_has_the_first_votes(state: TrainState, small_data: Path) -> None:
    split, catalog = open_split(small_data, "test"), open_catalog(small_data)
    settings = PredictionOptions(batch_size=4)
    (*_, stopped) = predict_in_rounds(state, split, settings, until=time.monotonic() - 1)
    assert stopped is not None and stopped.is_final and len(stopped.predictions) < split.num_examples
    rows = stopped.predictions
    answered = {
        (catalog.name(int(identifier)), int(index))
        for identifier, index in zip(rows.puzzle_identifiers, rows.test_index, strict=True)
    }
    inputs = {(name, index) for name, task in open_test_tasks(small_data).items() for index in range(len(task.test))}
    assert inputs <= answered, "of each input the un-augmented one"


def test_snapshots_grow_and_the_last_is_final(state: TrainState, small_data: Path) -> None:
    split = open_split(small_data, "test")
    snapshots = [s for s in predict_in_rounds(state, split, PredictionOptions(batch_size=4)) if s is not None]
    sizes = [len(snapshot.predictions) for snapshot in snapshots]
    assert sizes == sorted(sizes) and sizes[0] == 4 and sizes[-1] == split.num_examples
    assert [snapshot.is_final for snapshot in snapshots] == [False] * (len(snapshots) - 1) + [True]
    assert len(snapshots) > 2


def test_time_counts_from_the_start_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = "from utils.timers import seconds_since_start as since; print(since())"
    code = f"import subprocess, sys, time; time.sleep(1); subprocess.run([sys.executable, '-c', {inner!r}])"
    for launched, least in (("", 0.0), ("TORCHELASTIC_RUN_ID", 1.0)):
        with monkeypatch.context() as patch:
            if launched:
                patch.setenv(launched, "x")
            started = time.monotonic()
            done = run_process("-c", code)
            took = time.monotonic() - started
        assert least <= float(done.stdout) <= took, done.stderr
        assert launched or float(done.stdout) < took - 0.9


def test_time_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is reserved for writing, and one for the submissions that are written meanwhile."""
    now = 1000.0
    monkeypatch.setattr("evaluators.time_split.time.monotonic", lambda: now)

    def split(seconds: float, everything: float, first: float, start_up: float = 0) -> tuple[float, float]:
        times = split_time(
            Deadline(now + seconds),
            predict_all=everything,
            predict_first=first,
            start_up=start_up,
            submit=0,
            predictions=0,
            state_bytes=0,
        )
        return (times.training or now) - now, times.prediction - now

    assert split(101, 10, 1) == pytest.approx((100 - 1 - 11.5, 100))
    assert split(101, 1000, 1) == pytest.approx((100 - 1 - 40, 100)), "not more than a fraction for more votes"
    assert split(101, 1000, 70) == pytest.approx((100 - 1 - 91, 100)), "but every input is to have one"
    assert split(1, 1000, 70) == pytest.approx((0, 0))
    assert split(101, 1000, 1, start_up=50) == pytest.approx((59, 100))
    assert split(101, 1000, 1, start_up=70) == pytest.approx((0, 100)), "it would end while it compiles"


def test_checkpoints_submissions_and_predictions_take_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluators.time_split.time.monotonic", lambda: 0.0)
    times: dict[str, float] = {"predict_all": 10, "predict_first": 1, "start_up": 0}
    plain = split_time(Deadline(100), **times, submit=0, predictions=0, state_bytes=0)
    busy = split_time(Deadline(100), **times, submit=3, predictions=100_000, state_bytes=1_500_000_000)
    assert plain.training is not None and busy.training is not None
    assert plain.prediction - busy.prediction == pytest.approx(3 + 6), "writing follows prediction"
    assert plain.training - busy.training == pytest.approx(3 + 6 + 10), "a checkpoint is written before it"


def evaluation_of(folder: Path) -> Path:
    (path,) = folder.glob("evaluation_step_*")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_with_a_budget_ends_in_time_and_is_valid_at_every_moment(
    ranks: int, small_data: Path, tmp_path: Path
) -> None:
    seconds = 12
    tasks = open_test_tasks(small_data)
    started = time.monotonic()
    words = (
        *("eval_arc_k10.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path}", "epochs=100000"),
        *("eval_interval=100000", "puzzle_rows=zero", f"time_budget={seconds / 60}", *SMALL, "log_every=50"),
    )
    process = Running(words) if ranks == 1 else RunningRanks(words, ranks)
    wait_for((tmp_path / "submission.json").exists)
    looked = 0
    while process.poll() is None:
        check_submission(json.loads((tmp_path / "submission.json").read_text()), tasks, 10)
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
    delays = [0.0, *np.random.default_rng().uniform(0, 5, 30 if LONG else 3)]
    for i, delay in enumerate(delays):
        print(f"killed {delay:.2f} s after its first submission")
        folder = tmp_path / str(i)
        process = start(
            *("eval_arc_k10.py", f"data_paths=[{small_data}]", f"checkpoint_path={folder}", "epochs=100000"),
            *("eval_interval=100000", "puzzle_rows=zero", "time_budget=0.1", *SMALL),
        )
        wait_for((folder / "submission.json").exists)
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):  # a run may end before its budget does
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for name, attempts in (("submission.json", 10), ("submission_kaggle.json", 2)):
            if name == "submission.json" or delay > 0.5:  # the second one follows the first
                check_submission(json.loads((folder / name).read_text()), tasks, attempts)


def evaluation_with(small_data: Path, run: Path, **settings: Any) -> Evaluation:
    defaults = {"arch": TINY, "data_paths": [str(small_data)], "epochs": 1, "eval_interval": None}
    config = EvalConfig.model_validate({**defaults, "global_batch_size": 8, **settings})
    return Evaluation(config, run, {"data": ["a"], "puzzles": "b"})


def test_an_evaluation_is_made_once_under_its_conditions(state: TrainState, small_data: Path, tmp_path: Path) -> None:
    result = evaluation_with(small_data, tmp_path).run(state)
    assert result is not None and result.metrics["ARC/predictions"] == 20
    folder = tmp_path / "evaluation_step_0"
    names = {"predictions.npz", "trace.npz", "submission.json", "submission_kaggle.json", "scores.json"}
    assert {path.name for path in folder.iterdir()} == names
    for name in ("submission.json", "submission_kaggle.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert evaluation_with(small_data, tmp_path).run(state) is None
    again = evaluation_with(small_data, tmp_path, ranking="sum_halt").run(state)
    assert again is not None and again.metrics["ARC/predictions"] == 20


def test_with_a_time_limit_every_round_is_submitted(
    state: TrainState, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation, tasks = evaluation_with(small_data, tmp_path), open_test_tasks(small_data)
    evaluation.submit_inputs()
    inputs = json.loads((tmp_path / "submission.json").read_text())
    assert all(
        entry["attempt_1"] == grid.tolist()
        for name, task in tasks.items()
        for entry, (grid, _) in zip(inputs[name], task.test, strict=True)
    )
    submitted = []

    def record(votes: Votes, *given: Any) -> dict[str, str]:
        submitted.append(sum(candidate.votes for candidates in votes.values() for candidate in candidates))
        return format_submissions(votes, *given)

    def refuse(*_: Any) -> None:
        raise AssertionError("only the page shows traces")

    monkeypatch.setattr("evaluators.arc.format_submissions", record)
    monkeypatch.setattr("evaluators.report.run_content.describe_traces", refuse)
    result = evaluation.run(state, until=time.monotonic() + 1000)
    rounds = len(list(predict_in_rounds(state, open_split(small_data, "test"), PredictionOptions(batch_size=8))))
    assert result is not None and len(submitted) == rounds > 3, "each round's submissions are built once"
    assert submitted == sorted(submitted), "each round has the votes of those before"
    for name in ("submission.json", "submission_kaggle.json"):
        assert (tmp_path / name).read_text() == (tmp_path / "evaluation_step_0" / name).read_text()


def test_predictions_are_saved_before_they_are_scored(
    state: TrainState, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no scores")

    with monkeypatch.context() as patch:
        patch.setattr(ArcScorer, "score", fail)
        with pytest.raises(RuntimeError, match="no scores"):
            evaluation_with(small_data, tmp_path).run(state)
    folder = tmp_path / "evaluation_step_0"
    assert {path.name for path in folder.iterdir()} == {"predictions.npz", "trace.npz"}
    assert len(Predictions.load(folder / "predictions.npz")) == 20
    assert evaluation_with(small_data, tmp_path).run(state) is not None, "the evaluation is not complete"


def test_scores_are_logged_before_the_page_is_written(
    state: TrainState, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no page")

    monkeypatch.setattr("evaluators.arc.render_page", fail)
    with MetricsLog(tmp_path / "metrics.jsonl") as log, pytest.raises(RuntimeError, match="no page"):
        run: Any = SimpleNamespace(directory=tmp_path, metrics=log)
        eval_arc_k10.evaluate(run, evaluation_with(small_data, tmp_path), state)
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert line["step"] == 0 and line["ARC/predictions"] == 20


def test_without_an_evaluator_nothing_is_predicted(state: TrainState, small_data: Path, tmp_path: Path) -> None:
    evaluation = evaluation_with(small_data, tmp_path, evaluators=[])
    evaluation.submit_inputs()
    assert evaluation.run(state) is None and not list(tmp_path.iterdir())


def test_exact_scores_have_no_submission_and_no_page(state: TrainState, small_data: Path, tmp_path: Path) -> None:
    evaluation = evaluation_with(small_data, tmp_path, evaluators=["exact"])
    evaluation.submit_inputs()
    result = evaluation.run(state)
    assert result is not None and result.metrics["exact/examples"] == 20
    assert result.write_page(tmp_path) is None
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["predictions.npz", "scores.json"]


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
    assert done.returncode == 2 and "tasks=train1 is not a test task" in done.stderr


@pytest.mark.parametrize("batch_size", [4, 64])
def test_right_answers_are_counted_where_time_cut_prediction(
    state: TrainState, small_data: Path, tmp_path: Path, batch_size: int
) -> None:
    split = open_split(small_data, "test")
    (*_, found) = predict_in_rounds(state, split, PredictionOptions(batch_size), until=time.monotonic() - 1)
    assert found is not None and found.examples is not None
    found.predictions.tokens = split.read(found.examples)[1]  # as if all were right
    result = ExactScorer(split).score(found)
    assert result.metrics["exact/examples"] == len(found.examples) == 4  # the first round
    assert result.metrics["exact/exact_accuracy"] == 1.0 and result.metrics["exact/steps_per_example"] == STEPS
    puzzles = np.searchsorted(split.puzzle_indices, found.examples, side="right") - 1
    assert np.array_equal(found.predictions.puzzle_identifiers, split.puzzle_identifiers[puzzles])
    result.write(tmp_path)
    written = json.loads((tmp_path / "scores.json").read_text())
    of_all = {f"all/{name}": value for name, value in written.pop("all").items()}
    assert of_all["all/exact_accuracy"] == 1 and written | of_all == {**result.metrics, "conditions": {}}


def test_wrong_cells_and_halting_are_counted(small_data: Path) -> None:
    """Half of the answers are right, one of them without wanting to halt; the others have one wrong cell."""
    split = open_split(small_data, "test")
    examples = np.arange(4)
    tokens = split.read(examples)[1]
    wrong = [np.flatnonzero(row)[0] for row in tokens]
    tokens[2, wrong[2]] += 1
    tokens[3, wrong[3]] += 1
    halts = np.array([1, -1, -1, -1], dtype=np.float32)
    zeros, steps = np.zeros(4, dtype=np.int32), np.array([1, 2, 3, 4], dtype=np.int32)
    predictions = Predictions(tokens, halts, puzzle_identifiers=zeros, test_index=zeros, steps=steps)
    metrics = ExactScorer(split).score(PredictionSnapshot(predictions, examples)).metrics
    labelled = (split.read(examples)[1] != 0).sum(1)
    assert metrics["exact/exact_accuracy"] == 0.5 and metrics["exact/steps_per_example"] == 2.5
    assert metrics["exact/accuracy"] == pytest.approx(1 - (1 / labelled[2] + 1 / labelled[3]) / 4)
    assert metrics["exact/q_halt_accuracy"] == 0.75
    of_all = {name: metrics[f"all/{name}"] for name in ("accuracy", "exact_accuracy", "q_halt_accuracy", "steps")}
    assert list(of_all.values()) == [metrics["exact/accuracy"], 0.5, 0.75, 2.5] and "all/lm_loss" not in metrics
    losses = [np.log1p(np.exp(-1)), np.log1p(np.exp(1)), np.log1p(np.exp(-1)), np.log1p(np.exp(-1))]
    assert metrics["all/q_halt_loss"] == pytest.approx(np.mean(losses))


def test_votes_of_several_checkpoints_and_steps_count_together(small_data: Path, tmp_path: Path) -> None:
    done = run_script(
        *("eval_arc_k10.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path}", "epochs=12"),
        *("eval_interval=4", "finetune_on=test_tasks", "puzzle_rows=zero", *SMALL, "pool_checkpoints=2"),
        *("vote_steps=2", "ranking=sum_halt"),
    )
    assert done.returncode == 0, done.stderr
    folders = scores.list_evaluations(tmp_path)
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
    shown = {task["id"]: task["test"] for task in read_saved_run(tmp_path)[1]["tasks"]}
    votes = count_votes(Predictions.joined([Predictions.load(file) for file in files]), open_catalog(small_data))
    assert {key: shown[key[0]][key[1]]["votes"] for key in votes} == {
        key: sum(candidate.votes for candidate in candidates) for key, candidates in votes.items()
    }


def test_votes_of_other_runs_and_older_checkpoints_have_weights(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of one network, then one of another network that pools its own two last evaluations and the first run's."""
    first, second = tmp_path / "first", tmp_path / "second"
    command = ("eval_arc_k10.py", f"data_paths=[{small_data}]", "finetune_on=test_tasks", "puzzle_rows=zero", *SMALL)
    refused = run_script(*command, f"checkpoint_path={second}", "epochs=4", f"pool_runs=[{first}]")
    assert refused.returncode == 2 and f"pool_runs={first} has no evaluation of these puzzles" in refused.stderr
    assert not second.exists()

    assert run_script(*command, f"checkpoint_path={first}", "epochs=8", "eval_interval=4").returncode == 0
    done = run_script(
        *(*command, f"checkpoint_path={second}", "arch.name=trm_singlez", "epochs=8", "eval_interval=4"),
        *(f"pool_runs=[{first}]", "pool_checkpoints=2", "pool_half_life=2"),
    )
    assert done.returncode == 0, done.stderr
    theirs, own = scores.list_evaluations(first), scores.list_evaluations(second)
    third = EvalConfig(data_paths=[str(small_data)], pool_runs=[str(first)])
    Evaluation(third, tmp_path / "third", {"puzzles": fingerprints(small_data)[1]}).submit_inputs()
    # before anything is predicted there is what the other run has voted for
    assert (tmp_path / "third/submission.json").read_text() == (theirs[-1] / "submission.json").read_text()
    root = 2**-0.5
    record = json.loads((own[-1] / "scores.json").read_text())
    assert record["conditions"]["pooled"] == [f"../first/{folder.name}" for folder in theirs] + [own[0].name]
    assert record["conditions"]["pool_weights"] == [root, 1.0, root]
    assert record["conditions"]["pool_half_life"] == 2 and record["conditions"]["pool_runs"] == [str(first)]
    assert record["ARC/checkpoints"] == 4 and record["ARC/predictions"] == 4 * 20
    assert "a vote of the checkpoints counts 0.707, 1, 0.707, 1, the last one" in done.stdout
    parts = [Predictions.load(folder / "predictions.npz") for folder in (*theirs, *own)]
    weights = np.repeat([root, 1.0, root, 1.0], 20)
    votes = count_votes(Predictions.joined(parts), open_catalog(small_data), weights=weights)
    counted = {key: sum(candidate.votes for candidate in candidates) for key, candidates in votes.items()}
    for content in (read_saved_run(second)[1], read_page(second / "report.html")):
        shown = {task["id"]: task["test"] for task in content["tasks"]}
        assert {key: shown[key[0]][key[1]]["votes"] for key in votes} == pytest.approx(counted)
        assert content["conditions"]["pool_weights"] == [root, 1.0, root]
    tools.recount(
        small_data, [own[0] / "predictions.npz", own[1] / "predictions.npz"], tmp_path / "out", 10, "votes", None, 2
    )
    again = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert again["conditions"]["pool_half_life"] == 2 and again["ARC/checkpoints"] == 2


def test_averages_at_several_rates_vote_together(small_data: Path, tmp_path: Path) -> None:
    """Each is what a run of that rate alone has, also after a resume, and its votes are the pool's."""
    command = ("eval_arc_k10.py", f"data_paths=[{small_data}]", "finetune_on=test_tasks", "puzzle_rows=zero", *SMALL)
    several, alone = tmp_path / "several", tmp_path / "alone"
    more = (f"checkpoint_path={several}", "eval_interval=4", "ema=true", "ema_rate=0.9", "ema_more_rates=[0.5,0.25]")
    for epochs in (4, 8):
        done = run_script(*command, *more, f"epochs={epochs}", "pool_checkpoints=2", "pool_half_life=1")
        assert done.returncode == 0, done.stderr
    done = run_script(
        *(*command, f"checkpoint_path={alone}", "eval_interval=4", "ema=true", "ema_rate=0.5", "epochs=8")
    )
    assert done.returncode == 0, done.stderr
    first, last = scores.list_evaluations(several)
    for ours, theirs in zip((first, last), scores.list_evaluations(alone), strict=True):
        one, other = (Predictions.load(at / "predictions.npz") for at in (ours / "ema_0.5", theirs))
        assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))
    names = ["predictions.npz", "ema_0.5/predictions.npz", "ema_0.25/predictions.npz"]
    parts = [Predictions.load(folder / name) for folder in (first, last) for name in names]
    assert len({part.q_halt.tobytes() for part in parts}) == 6  # six networks that differ
    record = json.loads((last / "scores.json").read_text())
    averages = ["ema_0.5", "ema_0.25"]
    assert record["conditions"]["pooled"] == [
        *(first.name, *(f"{first.name}/{name}" for name in averages), *(f"{last.name}/{name}" for name in averages))
    ]
    assert record["conditions"]["pool_weights"] == [0.5, 0.5, 0.5, 1.0, 1.0]
    assert record["conditions"]["ema_more_rates"] == [0.5, 0.25]
    weights = np.repeat([0.5, 0.5, 0.5, 1.0, 1.0, 1.0], 20)
    votes = count_votes(Predictions.joined(parts), open_catalog(small_data), weights=weights)
    shown = {task["id"]: task["test"] for task in read_saved_run(several)[1]["tasks"]}
    assert {key: shown[key[0]][key[1]]["votes"] for key in votes} == {
        key: sum(candidate.votes for candidate in candidates) for key, candidates in votes.items()
    }


def read_page(path: Path) -> dict[str, Any]:
    """What a page shows, as it is stored in it."""
    match = re.search(r"<script[^>]*application/json[^>]*>(.*?)</script>", path.read_text(), re.DOTALL)
    assert match is not None
    return dict(json.loads(match[1]))


def test_slots_stay_full_from_portion_to_portion(state: TrainState, small_data: Path) -> None:
    """Only the first round and the end leave slots empty: no portion waits for its slowest example."""
    split, batch_size, calls = open_split(small_data, "test"), 3, 0
    real = state.predict_step

    def count(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*arguments)

    state.predict_step = count  # type: ignore[assignment]
    options = PredictionOptions(batch_size, early_exit="halt")
    found = predict_all(state, split, options)
    assert found is not None and found.examples is not None
    assert found.examples.tolist() == list(range(split.num_examples))
    steps = found.predictions.steps
    first = order_in_rounds(split)[0][: order_in_rounds(split)[1]]
    later = np.setdiff1d(found.examples, first)
    most = sum(-(-steps[chosen].sum() // batch_size) + STEPS - 1 for chosen in (first, later))
    assert len(later) > 3 * batch_size and calls <= most
