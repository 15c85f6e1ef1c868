"""The published statistics of an evaluation against a plain loop: static and continuous batching, canvases, ranks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataset.canvas import Canvas
from dataset.sampling.joined import Batch
from dataset.storage import open_catalog, open_split, open_test_tasks
from evaluators.arc import ArcScorer
from evaluators.inference.canvas_choice import CanvasFallback
from evaluators.inference.engine import PredictionOptions
from evaluators.inference.predict import predict_all, predict_in_rounds
from evaluators.scores import STATISTICS, published_line, statistics_of
from models.act import ACTStep, initial_carry, refill
from models.losses import METRICS
from tests.builders.states import STEPS, predicting_state
from tests.conftest import SMALL, run_script
from training.state import TrainState
from training.step import to_slots
from utils.metrics_log import read_metrics


@pytest.fixture
def state(small_data: Path) -> TrainState:
    return predicting_state(small_data)


def plain(state: TrainState, data: Path, early_exit: bool = False) -> dict[str, float]:
    """The means of the training step's own metrics in evaluation mode, one example at a time."""
    split = open_split(data, "test")
    step = ACTStep(state.network, 0).eval()
    sums = dict.fromkeys(STATISTICS, 0.0)
    for example in range(split.num_examples):
        inputs, labels = split.read(np.array([example]))
        puzzle = np.searchsorted(split.puzzle_indices, example, side="right") - 1
        slots = to_slots(Batch(inputs, labels, split.puzzle_identifiers[[puzzle]]), state.device)
        rows = state.table.weights[slots.puzzle_identifiers.long()]  # type: ignore[union-attr]
        carry = refill(initial_carry(state.network, slots), slots, state.network.initial_latents())
        with torch.no_grad():
            for taken in range(1, STEPS + 1):
                carry, _, metrics, out = step(carry, rows, None, state.network.positions_of(*state.shape.whole))
                exits = taken == STEPS or (early_exit and float(out.q_halt[0]) > 0)
                if exits and not bool(carry.halted[0]):  # its metrics count halted slots alone
                    exact = (out.logits.argmax(-1) == slots.labels.long()) | (slots.labels == 0)
                    right = int(exact.sum() - (slots.labels == 0).sum()) / int((slots.labels != 0).sum())
                    whole = bool(exact.all())
                    found = {
                        "accuracy": right,
                        "exact_accuracy": whole,
                        "q_halt_accuracy": (out.q_halt[0] >= 0) == whole,
                    }
                    found |= {"steps": taken, "lm_loss": metrics[METRICS.index("lm_loss")]}
                    found["q_halt_loss"] = metrics[METRICS.index("q_halt_loss")]
                elif exits:
                    found = {name: metrics[METRICS.index(name)] for name in STATISTICS}
                    assert metrics[METRICS.index("count")] == 1
                if exits:
                    break
        for name in STATISTICS:
            sums[name] += float(found[name])
    return {name: value / split.num_examples for name, value in sums.items()}


def of(state: TrainState, data: Path, fallback: CanvasFallback | None = None, **settings: Any) -> Mapping[str, float]:
    split = open_split(data, "test")
    snapshot = predict_all(state, split, PredictionOptions(3, **settings), fallback)
    assert snapshot is not None
    found = statistics_of(snapshot, split)
    assert found is not None
    return found


@pytest.mark.parametrize("vote_steps", [1, 3])
@pytest.mark.parametrize("early_exit", [False, "halt"])
def test_they_are_those_of_a_plain_loop(state: TrainState, small_data: Path, early_exit: Any, vote_steps: int) -> None:
    found = of(state, small_data, early_exit=early_exit, vote_steps=vote_steps)
    wanted = plain(state, small_data, early_exit=bool(early_exit))
    assert set(found) == set(STATISTICS)
    assert found == pytest.approx(wanted, rel=1e-4)
    assert math.isfinite(found["lm_loss"]) and 0 < found["accuracy"] < 1


def test_an_example_that_is_predicted_again_counts_once(state: TrainState, small_data: Path) -> None:
    """Every example starts on a canvas that is too small for its answer, and ends on the whole one."""
    split = open_split(small_data, "test")
    canvases = (Canvas(6, 6), split.metadata.canvas)
    fallback = CanvasFallback(canvases, np.zeros(split.num_examples, dtype=np.int8))
    fallback.is_cut_off = lambda level, tokens: np.full(len(tokens), level == 0)  # type: ignore[method-assign]
    assert of(state, small_data, fallback) == pytest.approx(dict(of(state, small_data)), rel=1e-4)


def test_on_a_small_canvas_what_lies_outside_is_wrong(state: TrainState, small_data: Path) -> None:
    split = open_split(small_data, "test")
    canvases = (Canvas(3, 3), split.metadata.canvas)
    fallback = CanvasFallback(canvases, np.zeros(split.num_examples, dtype=np.int8))
    fallback.is_cut_off = lambda level, tokens: np.zeros(len(tokens), dtype=bool)  # type: ignore[method-assign]
    found = of(state, small_data, fallback)
    labels = split.read(np.arange(split.num_examples))[1].reshape(-1, *split.metadata.canvas)
    most = [(label[:3, :3] != 0).sum() / (label != 0).sum() for label in labels]
    assert found["accuracy"] <= np.mean(most) and math.isfinite(found["lm_loss"])


def test_an_any_time_stop_counts_what_was_predicted(state: TrainState, small_data: Path) -> None:
    split = open_split(small_data, "test")
    snapshots = list(predict_in_rounds(state, split, PredictionOptions(1), until=0.0))
    (snapshot,) = snapshots
    assert snapshot is not None and snapshot.examples is not None
    count = len(snapshot.examples)
    assert 0 < count < split.num_examples
    tokens = predict_all(state, split, PredictionOptions(3))
    assert tokens is not None
    labels = split.read(snapshot.examples)[1]
    right = (tokens.predictions.tokens[snapshot.examples] == labels) & (labels != 0)
    found = statistics_of(snapshot, split)
    assert found is not None
    assert found["accuracy"] == pytest.approx(float((right.sum(1) / (labels != 0).sum(1)).mean()))


def test_they_are_absent_without_outputs(state: TrainState, small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = open_split(small_data, "test")
    read = type(split).read
    monkeypatch.setattr(type(split), "read", lambda *words, **more: (read(*words, **more)[0], 0 * read(*words)[1]))
    snapshot = predict_all(state, split, PredictionOptions(3))
    assert snapshot is not None and snapshot.lm_loss is not None and np.isnan(snapshot.lm_loss).all()
    assert statistics_of(snapshot, split) is None
    scorer = ArcScorer(open_catalog(small_data), open_test_tasks(small_data), split=split)
    assert not any(name.startswith("all/") for name in scorer.score(snapshot).metrics)


def test_a_run_prints_and_keeps_them(small_data: Path, small_run: Path, tmp_path: Path) -> None:
    """On one rank and on two: the same numbers in the table's last line, in scores.json and in the log."""
    found = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        done = run_script(
            *("eval_arc_k10.py", f"data_paths=[{small_data}]", f"load_checkpoint={small_run}", "epochs=0", "ema=true"),
            *("puzzle_rows=keep", f"checkpoint_path={folder}", *SMALL),
            ranks=ranks,
        )
        assert done.returncode == 0, done.stderr
        (line,) = re.findall(r"^\{'all': \{.*\}$", done.stdout, re.MULTILINE)
        printed = json.loads(line.replace("'", '"'))
        (evaluation,) = folder.glob("evaluation_step_*")
        scores = json.loads((evaluation / "scores.json").read_text())
        logged = read_metrics(folder / "metrics.jsonl")[-1]
        assert list(printed["all"]) == list(STATISTICS)
        assert "ARC/pass@1" in printed and "ARC/pass@1000" in printed
        for name in STATISTICS:
            assert scores["all"][name] == logged[f"all/{name}"] == pytest.approx(printed["all"][name], rel=1e-4)
        assert published_line({**{f"all/{name}": scores["all"][name] for name in STATISTICS}, **scores}) == line
        found.append(scores["all"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
