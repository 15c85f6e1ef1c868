"""dataset/canvas.py and dataset/sampling/bucket_streams.py: sizes, the examples on them, and the streams of each."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dataset import storage
from dataset.build.arc import build_arc
from dataset.build.settings import ArcSettings
from dataset.canvas import Canvas, assign_canvases, fit_canvases, next_larger, validate_canvases, whole_canvas
from dataset.encoding import EOS, PAD
from dataset.sampling.bucket_streams import BucketStreams, Position, measure_demand
from dataset.sampling.joined import JoinedSplits
from dataset.sampling.sampler import BatchSampler
from models.arch import ArchConfig
from tests.builders.splits import FakeSplit, examples_of
from training.metrics.cost_model import example_cost
from utils.errors import SettingError

WHOLE = Canvas(6, 6)


def test_each_size_gets_the_first_canvas_that_holds_it() -> None:
    canvases = validate_canvases([[6, 6], [3, 5], [5, 3], [3, 3]], WHOLE)
    assert canvases == ((3, 3), (3, 5), (5, 3), (6, 6))
    sizes = np.array([[1, 1], [3, 3], [2, 4], [4, 2], [4, 4], [6, 1]])
    assert assign_canvases(sizes, canvases).tolist() == [0, 0, 1, 2, 3, 3]
    assert next_larger(canvases) == [1, 3, 3, None]
    assert whole_canvas(900) == (30, 30)
    assert whole_canvas(12) == (1, 12)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([[3, 3]], "whole canvas 6x6 is missing"),
        ([[7, 6], [6, 6]], "7x6 is not within"),
        ([[0, 3], [6, 6]], "0x3 is not within"),
        ([[3, 3], [3, 3], [6, 6]], "3x3 is listed twice"),
    ],
)
def test_canvases_that_cannot_be_are_refused(sizes: list[list[int]], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        validate_canvases(sizes, WHOLE)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_fitted_canvases_are_the_cheapest_of_all(most: int) -> None:
    rng = np.random.default_rng(most)
    sizes = rng.integers(1, 9, (40, 2))
    weights = rng.random(40)
    whole = Canvas(8, 8)

    def cost(cells: int) -> float:
        return float(cells + 10)

    def price(sides: tuple[int, ...]) -> float:
        canvases = [Canvas(s, s) for s in sides]
        bucket = assign_canvases(sizes, canvases)
        return sum(float(weights[bucket == i].sum()) * cost(c.cells) for i, c in enumerate(canvases))

    all_sets = [(*s, 8) for n in range(most) for s in itertools.combinations(range(1, 8), n)]
    found = fit_canvases(sizes, weights, whole, cost, most)
    best = min(map(price, all_sets))
    assert price(tuple(c.height for c in found)) <= best * 1.0001 / (1 - 0.03)  # fewer where a further one saves little
    assert found[-1] == whole and len(found) <= most


def test_the_cost_of_known_canvases_on_the_real_training_mix(arc_dir: Path, tmp_path: Path) -> None:
    """Against figures computed independently from the same tasks at width 512."""
    settings = ArcSettings(
        input_file_prefix=str(arc_dir / "arc-agi"),
        output_dir=str(tmp_path / "mix"),
        subsets=["training2", "evaluation2", "concept"],
        test_set_name="evaluation2",
        num_aug=7,
    )
    build_arc(settings, lambda done, total: None)
    sizes, visits = measure_demand(JoinedSplits([storage.open_split(tmp_path / "mix", "train")]))
    cost = partial(example_cost, ArchConfig())

    def saved(sides: list[int]) -> float:
        canvases = [Canvas(s, s) for s in sides]
        bucket = assign_canvases(sizes, canvases)
        spent = sum(float(visits[bucket == i].sum()) * cost(c.cells) for i, c in enumerate(canvases))
        return cost(900) * float(visits.sum()) / spent

    assert saved([10, 15, 20, 30]) == pytest.approx(2.72, abs=0.005)
    assert saved([11, 16, 22, 30]) == pytest.approx(2.94, abs=0.005)
    assert saved([8, 11, 14, 18, 23, 30]) == pytest.approx(3.22, abs=0.005)
    chosen = [c.height for c in fit_canvases(sizes, visits, Canvas(30, 30), cost)]
    assert len(chosen) <= 6
    assert saved(chosen) >= saved([8, 11, 14, 18, 23, 30])


def test_a_part_of_the_canvas_shows_what_the_whole_one_does(small_data: Path) -> None:
    """Un-shifted, a part is the top-left corner of the whole canvas, and outside it there is only padding."""
    split = storage.open_split(small_data, "train")
    examples = np.arange(split.num_examples)
    sizes = split.canvas_sizes(examples)
    whole = [rows.reshape(-1, 6, 6) for rows in split.read(examples)]
    for canvas in (Canvas(4, 6), Canvas(5, 4), Canvas(6, 6)):
        fits = (sizes <= canvas).all(1)
        assert 0 < fits.sum() <= len(examples)
        for part, full in zip(split.read(examples[fits], None, canvas), whole, strict=True):
            assert np.array_equal(part.reshape(-1, *canvas), full[fits][:, : canvas.height, : canvas.width])
            assert (full[fits][:, canvas.height :] == PAD).all() and (full[fits][:, :, canvas.width :] == PAD).all()
    with pytest.raises(AssertionError, match="does not fit a canvas of 2x2"):
        split.read(examples, None, Canvas(2, 2))


def test_shifts_stay_on_the_canvas_and_keep_the_frame(small_data: Path) -> None:
    split = storage.open_split(small_data, "train")
    canvas = Canvas(5, 5)
    examples = np.arange(split.num_examples)
    examples = examples[(split.canvas_sizes(examples) <= canvas).all(1)]
    still = split.read(examples, None, canvas)
    moved = 0
    for seed in range(20):
        shifted = split.read(examples, np.full(len(examples), seed, dtype=np.uint64), canvas)
        for a, b in zip(still, shifted, strict=True):
            # The same tokens at another place: colours and EOS, whose frame ends within the canvas.
            assert np.array_equal(np.sort(a, axis=1), np.sort(b, axis=1))
        moved += int((still[0] != shifted[0]).any(1).sum())
    assert moved > 0
    assert (still[0] == EOS).any(1).all()


def test_expanded_data_have_the_whole_canvas_alone(small_data: Path, tmp_path: Path) -> None:
    split = FakeSplit([[3]])
    expanded = storage.ExpandedSplit(
        split.metadata,  # type: ignore[arg-type]
        inputs=[],
        labels=[],
        group_indices=split.group_indices,
        puzzle_indices=split.puzzle_indices,
        puzzle_identifiers=split.puzzle_identifiers,
    )
    with pytest.raises(SettingError, match="--format compact"):
        expanded.canvas_sizes(np.arange(3))
    with pytest.raises(SettingError, match="canvases=null"):
        expanded.read(np.arange(3), None, Canvas(2, 2))


CANVASES = (Canvas(4, 4), Canvas(5, 5))
START = Position()


def streams_of(groups: list[list[int]], seed: int = 0) -> BucketStreams:
    return BucketStreams(JoinedSplits([FakeSplit(groups, seq_len=25)]), CANVASES, seed)  # type: ignore[list-item]


def taken(streams: BucketStreams, bucket: int, chunks: int, size: int, start: Position = START, **ranks: int) -> list:
    stream = streams.stream(bucket, size, start, **ranks)
    found = [next(stream) for _ in range(chunks)]
    stream.close()
    return found


def test_every_example_is_in_one_stream_and_as_often_as_any_other() -> None:
    """Groups have puzzles and examples of different number; an epoch visits each group once, and of it one puzzle."""
    groups = [[3], [6, 6], [1, 1, 1, 1], [4]]
    streams = streams_of(groups)
    sampler = BatchSampler(streams.data.splits, 500, 3000, seed=0)  # hardly a puzzle is cut
    on_one_canvas = Counter(
        int(e) for step in range(sampler.num_steps(0)) for e in examples_of(sampler.batch(0, step).inputs)
    )
    total = sum(on_one_canvas.values())
    assert streams.fractions.sum() == pytest.approx(1)
    for bucket in (0, 1):
        drawn = Counter(int(e) for batch, _ in taken(streams, bucket, 3000, 4) for e in examples_of(batch.inputs))
        assert {e % 3 == 0 for e in drawn} == {bucket == 1}
        number = sum(drawn.values())
        share = sum(n for e, n in on_one_canvas.items() if (e % 3 == 0) == (bucket == 1)) / total
        assert streams.fractions[bucket] == pytest.approx(share, abs=0.01)
        for example, n in on_one_canvas.items():
            if (example % 3 == 0) == (bucket == 1):
                assert drawn[example] / number == pytest.approx(n / total / share, rel=0.15), example


def test_groups_of_fractional_weight_are_in_the_streams_as_often_as_their_weight_says() -> None:
    """Segments end where they end; no turn of a weighted group meets their ends more often than another's."""
    split = FakeSplit([[1]] * 40, seq_len=25)
    split.group_weights = np.full(40, 0.5)
    streams = BucketStreams(JoinedSplits([split]), CANVASES, 0)  # type: ignore[list-item]
    drawn = Counter(int(e) for batch, _ in taken(streams, 0, 4000, 10) for e in examples_of(batch.inputs))
    counts = np.array([drawn[e] for e in range(40) if e % 3])
    assert counts.min() > 0.97 * counts.mean() and counts.max() < 1.03 * counts.mean()


def test_a_stream_goes_on_where_it_was_left_and_ranks_share_it() -> None:
    streams = streams_of([[3], [6, 6], [5]], seed=3)
    straight = taken(streams, 0, 600, 6)
    for position in (0, 7, 150, 599):
        start = straight[position - 1][1] if position else Position()
        again, after = taken(streams, 0, 1, 6, start)[0]
        assert np.array_equal(again.inputs, straight[position][0].inputs)
        assert after == straight[position][1]
    assert max(after.segment for _, after in straight) > 1  # the test crosses segments
    halves = [taken(streams, 0, 50, 6, rank=rank, world_size=2) for rank in (0, 1)]
    for (whole_batch, _), (first, _), (second, _) in zip(straight, *halves, strict=False):
        assert np.array_equal(whole_batch.inputs, np.concatenate([first.inputs, second.inputs]))
    other = taken(streams_of([[3], [6, 6], [5]], seed=4), 0, 50, 6)
    assert any((a.inputs != b.inputs).any() for (a, _), (b, _) in zip(straight, other, strict=False))
