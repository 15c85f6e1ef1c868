"""evaluators/inference/canvas_choice.py: where a test input starts, when it is predicted again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset import storage
from dataset.canvas import Canvas
from dataset.encoding import COLOUR_0
from dataset.tasks import Task
from evaluators.inference.canvas_choice import (
    CanvasFallback,
    is_closed,
    suggest_length,
    suggest_size,
    suggest_sizes,
)
from evaluators.inference.engine import PredictionBatch, PredictionOptions
from evaluators.inference.gather import PredictionCollector
from evaluators.inference.predict import measure_prediction, predict_all, predict_in_rounds
from tests.builders.grids import encode_grid
from tests.builders.states import predicting_state
from tests.conftest import SMALL, run_script


@pytest.mark.parametrize(
    ("demonstrations", "given", "suggested"),
    [
        ([(3, 3), (5, 5)], 7, 7),  # as long as the input
        ([(3, 9), (4, 12)], 5, 15),  # three times
        ([(4, 2), (6, 3)], 7, 4),  # half, rounded up
        ([(3, 4), (5, 4)], 9, 4),  # always 4
        ([(3, 4), (5, 2)], 9, 4),  # no rule: the longest
    ],
)
def test_the_length_of_an_output_is_suggested_by_the_demonstrations(
    demonstrations: list[tuple[int, int]], given: int, suggested: int
) -> None:
    assert suggest_length(demonstrations, given) == suggested


def test_the_size_covers_the_input_and_needs_no_output() -> None:
    given = np.zeros((8, 5), dtype=np.uint8)
    doubled = (np.array([[1, 2]], dtype=np.uint8), np.array([[1, 2, 1, 2]], dtype=np.uint8))
    assert suggest_size(Task("a", "", (doubled,), ((given, None),)), 0) == (9, 11)  # 8 rows, 2 x 5 columns, the frame
    assert suggest_size(Task("a", "", (), ((given, None),)), 0)[0] > 30


@pytest.mark.parametrize(
    ("grid", "wanted"),
    [((2, 2), True), ((3, 3), True), ((4, 2), False), ((2, 4), False), ((4, 4), False)],
)
def test_a_grid_is_closed_when_its_frame_is_on_the_canvas(grid: tuple[int, int], wanted: bool) -> None:
    tokens = encode_grid(np.ones(grid, dtype=np.uint8), 4)
    assert is_closed(tokens[None], Canvas(4, 4), Canvas(6, 6)).tolist() == [wanted]
    assert is_closed(tokens[None], Canvas(4, 4), Canvas(4, 4)).tolist() == [True]  # there is nothing larger
    if wanted:
        broken = tokens.reshape(4, 4).copy()
        broken[grid[0], 0] = 0  # a hole in the frame
        assert not is_closed(broken.reshape(1, 16), Canvas(4, 4), Canvas(6, 6))[0]


@pytest.mark.parametrize(("grid", "wanted"), [((6, 2), True), ((6, 4), False), ((5, 2), True)])
def test_a_grid_as_high_as_the_whole_canvas_has_no_frame_below(grid: tuple[int, int], wanted: bool) -> None:
    on_whole = encode_grid(np.ones(grid, dtype=np.uint8), 6).reshape(6, 6)
    assert is_closed(on_whole[:, :4].reshape(1, 24), Canvas(6, 4), Canvas(6, 6)).tolist() == [wanted]


def test_nothing_to_see_is_not_closed() -> None:
    assert not is_closed(np.zeros((1, 16), dtype=np.uint8), Canvas(4, 4), Canvas(6, 6))[0]


CANVASES = (Canvas(3, 3), Canvas(4, 4), Canvas(6, 6))


def all_small(split: storage.Split) -> CanvasFallback:
    """Every example starts on the smallest canvas."""
    return CanvasFallback(CANVASES, np.zeros(split.num_examples, dtype=np.int8))


def test_turned_inputs_start_on_turned_sizes(small_data: Path) -> None:
    split, catalog = storage.open_split(small_data, "test"), storage.open_catalog(small_data)
    tasks = storage.open_test_tasks(small_data)
    sizes = suggest_sizes(split, catalog, tasks)
    levels = CanvasFallback.from_sizes(CANVASES, sizes).first_levels(np.arange(split.num_examples))
    for n in range(split.num_examples):
        puzzle = int(np.searchsorted(split.puzzle_indices, n, side="right")) - 1
        name, augmentation = catalog.lookup(int(split.puzzle_identifiers[puzzle]))
        train = tuple((augmentation.apply(a), augmentation.apply(b)) for a, b in tasks[name].train if b is not None)
        test = tuple((augmentation.apply(grid), None) for grid, _ in tasks[name].test)
        wanted = suggest_size(Task(name, "", train, test), n - int(split.puzzle_indices[puzzle]))
        assert tuple(sizes[n]) == wanted
        assert levels[n] == next(i for i, c in enumerate(CANVASES) if c.holds(Canvas(*np.minimum(wanted, 6))))


class Grids(torch.nn.Module):
    """Stands in for the network: answers every input by a grid of one size, with its frame where the canvas has it."""

    def __init__(self, size: int, real: torch.nn.Module) -> None:
        super().__init__()
        self.size, self.real, self.canvases = size, real, []

    def forward(self, latents, inputs, rows, positions=None, width=None):  # type: ignore[no-untyped-def]
        side = round(inputs.shape[1] ** 0.5)
        self.canvases.append(side)
        grid = np.full((min(self.size, side), min(self.size, side)), 3, dtype=np.uint8)
        tokens = torch.from_numpy(encode_grid(grid, side).astype(np.int64)).expand(len(inputs), -1)
        q = torch.zeros(len(inputs))
        logits = torch.nn.functional.one_hot(tokens, 12).to(torch.float32)
        return latents, tokens.to(torch.uint8), q, q > 0, logits


@pytest.mark.parametrize(("size", "repeats"), [(1, 0), (3, 1), (5, 2)])
def test_what_does_not_fit_is_predicted_again_on_the_next_canvas(small_data: Path, size: int, repeats: int) -> None:
    state, split = predicting_state(small_data), storage.open_split(small_data, "test")
    stand_in = Grids(size, state.network)
    state.predict_step = stand_in  # type: ignore[assignment]
    found = predict_all(state, split, PredictionOptions(batch_size=4, trace=True), all_small(split))
    assert found is not None and found.is_final
    assert found.repeated == repeats * split.num_examples
    assert set(stand_in.canvases) == {c.height for c in CANVASES[: repeats + 1]}
    wanted = encode_grid(np.full((size, size), 3, dtype=np.uint8), 6)
    assert found.examples is not None
    assert found.examples.tolist() == list(range(split.num_examples)), "each once, as the largest canvas answers"
    assert (found.predictions.tokens == wanted).all()
    assert found.trace is not None and len(found.trace.tokens) == 4, "the un-augmented ones"
    assert (found.trace.tokens[:, -1] == wanted).all()


def test_on_the_whole_canvas_alone_nothing_is_repeated(small_data: Path) -> None:
    """A canvas that all examples start on is predicted as one that is not chosen."""
    state, split = predicting_state(small_data), storage.open_split(small_data, "test")
    plain = predict_all(state, split, PredictionOptions(batch_size=8))
    chosen = predict_all(state, split, PredictionOptions(batch_size=3), CanvasFallback(CANVASES))
    assert plain is not None and chosen is not None
    assert np.array_equal(plain.predictions.tokens, chosen.predictions.tokens)
    assert (plain.repeated, chosen.repeated) == (None, 0)


def test_time_that_runs_out_leaves_the_best_answer_so_far(small_data: Path) -> None:
    state, split = predicting_state(small_data), storage.open_split(small_data, "test")
    state.predict_step = Grids(5, state.network)  # type: ignore[assignment]
    settings = PredictionOptions(batch_size=1000)
    (*_, found) = predict_in_rounds(state, split, settings, all_small(split), until=0.0)
    assert found is not None and len(found.predictions) > 0 and found.is_final
    shown = found.predictions.tokens.reshape(-1, 6, 6)[:, :3, :3]
    assert (shown == 3 + COLOUR_0).all()  # the part that the first canvas shows


def test_an_answer_that_is_cut_off_has_no_vote_beside_one_that_is_not(small_data: Path) -> None:
    """Two puzzles of the first task with two test inputs: input 0 has a closed and a cut answer, input 1 a cut one."""
    split = storage.open_split(small_data, "test")
    assert split.puzzle_indices[:3].tolist() == [0, 2, 4]
    collector = PredictionCollector(split, all_small(split))
    tokens = np.stack([encode_grid(np.full((size, size), 3, dtype=np.uint8), 3) for size in (1, 3, 3)])
    batch = PredictionBatch(
        np.array([0, 2, 1]), tokens, np.zeros(3, dtype=np.float32), np.ones(3, dtype=np.int32), np.zeros(3, np.float32)
    )
    collector.add(0, batch)
    assert collector.take_repeats(0).tolist() == [1, 2]
    found = collector.snapshot(repeated=0, is_final=True)
    assert found is not None and found.examples is not None
    assert found.examples.tolist() == [0, 1]
    assert found.predictions.puzzle_identifiers.tolist() == [int(split.puzzle_identifiers[0])] * 2
    assert found.predictions.test_index.tolist() == [0, 1]


@pytest.mark.parametrize(("size", "canvases_used"), [(1, 1), (3, 2), (5, 3)])
def test_the_time_of_repeats_is_counted(
    small_data: Path, size: int, canvases_used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock by which every batch takes a second, and the first of each canvas two more to compile."""
    state, split = predicting_state(small_data), storage.open_split(small_data, "test")
    now, seen = 0.0, set()

    def predict(latents, inputs, rows, positions=None, width=None):  # type: ignore[no-untyped-def]
        nonlocal now
        now += 0.25  # each of the four steps
        if inputs.shape[1] not in seen:
            seen.add(inputs.shape[1])
            now += 2
        return stand_in(latents, inputs, rows, positions)

    stand_in = Grids(size, state.network)
    state.predict_step = predict  # type: ignore[assignment]
    monkeypatch.setattr("evaluators.inference.predict.time.monotonic", lambda: now)
    took = measure_prediction(state, split, PredictionOptions(batch_size=4), all_small(split))
    assert took.everything == pytest.approx(canvases_used * split.num_examples / 4)
    assert took.first_round == pytest.approx(canvases_used * 4 / 4)
    assert took.compiling == pytest.approx(2 * len(CANVASES)), "also of canvases on which no example starts"
    assert took.longest_batch == pytest.approx(1)


def test_from_data_to_submission_on_several_canvases(small_data: Path, tmp_path: Path) -> None:
    """On one and two ranks: the same votes, every input in its place."""
    submissions = []
    for ranks in (1, 2):
        folder = tmp_path / f"ranks{ranks}"
        done = run_script(
            *("eval_arc_k10.py", *SMALL, f"data_paths=[{small_data}]", f"checkpoint_path={folder}", "epochs=4"),
            *("eval_interval=4", "canvases=[[4,4],[5,5],[6,6]]", "micro_batch_size=2", "ema=true", "puzzle_rows=zero"),
            ranks=ranks,
        )
        assert done.returncode == 0, done.stderr
        assert "answers were made again on a larger canvas" in done.stdout
        submissions.append(json.loads((folder / "submission.json").read_text()))
        (evaluation,) = folder.glob("evaluation_step_*")
        scores = json.loads((evaluation / "scores.json").read_text())
        assert scores["ARC/repeated_on_larger_canvas"] > 0  # a network that has learned nothing closes no grid
        assert scores["conditions"]["canvases"] == [[4, 4], [5, 5], [6, 6]]
        assert scores["ARC/predictions"] == storage.open_split(small_data, "test").num_examples
    tasks = storage.open_test_tasks(small_data)
    assert {name: len(entries) for name, entries in submissions[0].items()} == {
        name: len(task.test) for name, task in tasks.items()
    }
    assert submissions[0] == submissions[1]
