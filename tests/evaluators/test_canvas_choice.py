"""evaluators/inference/canvas_choice.py: where a test input starts, when it is predicted again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset import storage
from dataset.canvas import Canvas
from dataset.encoding import encode_grid
from evaluators.inference.canvas_choice import Ladder, closed, suggested_extent, suggested_length
from evaluators.inference.gather import _Collected
from evaluators.inference.predict import predict, predict_in_rounds
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
    assert suggested_length(demonstrations, given) == suggested


def test_the_extent_covers_the_input_and_needs_no_output() -> None:
    grid = [[0] * 5] * 8
    task = {"train": [{"input": [[1, 2]], "output": [[1, 2, 1, 2]]}], "test": [{"input": grid}]}
    assert suggested_extent(task, 0) == (9, 11)  # 8 rows as the input, 2 x 5 columns, and the frame
    assert suggested_extent({"train": [], "test": [{"input": grid}]}, 0)[0] > 30


@pytest.mark.parametrize(
    ("grid", "is_closed"),
    [((2, 2), True), ((3, 3), True), ((4, 2), False), ((2, 4), False), ((4, 4), False)],
)
def test_a_grid_is_closed_when_its_frame_is_on_the_canvas(grid: tuple[int, int], is_closed: bool) -> None:
    tokens = encode_grid(np.ones(grid, dtype=np.uint8), 4)
    assert closed(tokens[None], Canvas(4, 4), Canvas(6, 6)).tolist() == [is_closed]
    assert closed(tokens[None], Canvas(4, 4), Canvas(4, 4)).tolist() == [True]  # there is nothing larger
    if is_closed:
        broken = tokens.reshape(4, 4).copy()
        broken[grid[0], 0] = 0  # a hole in the frame
        assert not closed(broken.reshape(1, 16), Canvas(4, 4), Canvas(6, 6))[0]


@pytest.mark.parametrize(("grid", "is_closed"), [((6, 2), True), ((6, 4), False), ((5, 2), True)])
def test_a_grid_as_high_as_the_whole_canvas_has_no_frame_below(grid: tuple[int, int], is_closed: bool) -> None:
    on_whole = encode_grid(np.ones(grid, dtype=np.uint8), 6).reshape(6, 6)
    assert closed(on_whole[:, :4].reshape(1, 24), Canvas(6, 4), Canvas(6, 6)).tolist() == [is_closed]


def test_nothing_to_see_is_not_closed() -> None:
    assert not closed(np.zeros((1, 16), dtype=np.uint8), Canvas(4, 4), Canvas(6, 6))[0]


CANVASES = (Canvas(3, 3), Canvas(4, 4), Canvas(6, 6))


def ladder_for(data: Path) -> Ladder:
    split = storage.open_split(data, "test")
    return Ladder.of(CANVASES, split, storage.open_catalog(data), storage.open_test_tasks(data))


def test_turned_inputs_start_on_turned_extents(small_data: Path) -> None:
    split, catalog = storage.open_split(small_data, "test"), storage.open_catalog(small_data)
    ladder = ladder_for(small_data)
    assert ladder.starts is not None
    tasks = storage.open_test_tasks(small_data)
    for n in range(split.num_examples):
        puzzle = int(np.searchsorted(split.puzzle_indices, n, side="right")) - 1
        task, augmentation = catalog.lookup(int(split.puzzle_identifiers[puzzle]))
        index = n - int(split.puzzle_indices[puzzle])
        pairs = [{k: augmentation.apply(np.array(g)) for k, g in pair.items()} for pair in tasks[task]["train"]]
        inputs = [{"input": augmentation.apply(np.array(pair["input"]))} for pair in tasks[task]["test"]]
        wanted = suggested_extent({"train": pairs, "test": inputs}, index)
        first = next(i for i, c in enumerate(CANVASES) if c.holds(Canvas(*np.minimum(wanted, 6))))
        assert ladder.starts[n] == first


class Grids(torch.nn.Module):
    """Stands in for the network: answers every input by a grid of one size, with its frame where the canvas has it."""

    def __init__(self, size: int, real: torch.nn.Module) -> None:
        super().__init__()
        self.size, self.real, self.canvases = size, real, []

    def forward(self, latents, inputs, rows, positions=None):  # type: ignore[no-untyped-def]
        side = round(inputs.shape[1] ** 0.5)
        self.canvases.append(side)
        grid = np.full((min(self.size, side), min(self.size, side)), 3, dtype=np.uint8)
        tokens = torch.from_numpy(encode_grid(grid, side).astype(np.int64)).expand(len(inputs), -1)
        q = torch.zeros(len(inputs))
        return latents, tokens.to(torch.uint8), q, q > 0


@pytest.mark.parametrize(("size", "repeats"), [(1, 0), (3, 1), (5, 2)])
def test_what_does_not_fit_is_predicted_again_on_the_next_canvas(small_data: Path, size: int, repeats: int) -> None:
    state, split = predicting_state(small_data), storage.open_split(small_data, "test")
    stand_in = Grids(size, state.network)
    state.predict_step = stand_in  # type: ignore[assignment]
    ladder = Ladder(CANVASES, np.zeros(split.num_examples, dtype=np.int8))
    traced: list = []
    inputs_fit = split.read(np.arange(split.num_examples))[0].reshape(-1, 6, 6)
    assert inputs_fit.shape[0] == split.num_examples
    (*_, found) = predict_in_rounds(state, split, 4, ladder=ladder, traced=traced)
    assert found is not None
    assert ladder.repeated == repeats * split.num_examples
    assert set(stand_in.canvases) == {c.height for c in CANVASES[: repeats + 1]}
    wanted = encode_grid(np.full((size, size), 3, dtype=np.uint8), 6)
    assert len(found) == split.num_examples  # each once, as the largest canvas answers
    assert (found.tokens == wanted).all()
    assert all((tokens[:, -1] == wanted).all() for _, tokens in traced)


def test_on_the_whole_canvas_alone_nothing_changes(small_data: Path) -> None:
    state, split = predicting_state(small_data), storage.open_split(small_data, "test")
    plain = predict(state, split, 8)
    ladder = Ladder((Canvas(6, 6),))
    (*_, found) = predict_in_rounds(state, split, 3, ladder=ladder)
    assert plain is not None and found is not None
    assert np.array_equal(plain.tokens, found.tokens)
    assert ladder.repeated == 0


def test_time_that_runs_out_leaves_the_best_answer_so_far(small_data: Path) -> None:
    state, split = predicting_state(small_data), storage.open_split(small_data, "test")
    state.predict_step = Grids(5, state.network)  # type: ignore[assignment]
    ladder = Ladder(CANVASES, np.zeros(split.num_examples, dtype=np.int8))
    (*_, found) = predict_in_rounds(state, split, 1000, ladder=ladder, until=0.0)
    assert found is not None and len(found) > 0
    assert (found.tokens.reshape(-1, 6, 6)[:, :3, :3] == 3 + 2).all()  # the part that the first canvas shows


def test_an_answer_that_is_cut_off_has_no_vote_beside_one_that_is_not(small_data: Path) -> None:
    """Two puzzles of the first task with two test inputs: input 0 has a closed and a cut answer, input 1 a cut one."""
    split = storage.open_split(small_data, "test")
    assert split.puzzle_indices[:3].tolist() == [0, 2, 4]
    collected = _Collected(split, Ladder(CANVASES, np.zeros(split.num_examples, dtype=np.int8)))
    tokens = np.stack([encode_grid(np.full((size, size), 3, dtype=np.uint8), 3) for size in (1, 3, 3)])
    collected.add(0, (np.array([0, 2, 1]), tokens, np.zeros(3, dtype=np.float32), np.ones(3, dtype=np.int32)))
    found = collected.gather()
    assert found is not None
    first = int(split.puzzle_identifiers[0])
    shown = set(zip(found.puzzle_identifiers.tolist(), found.test_index.tolist(), strict=True))
    assert shown == {(first, 0), (first, 1)}


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
        name: len(task["test"]) for name, task in tasks.items()
    }
    assert submissions[0] == submissions[1]
