"""dataset/sampling/: training and evaluation batches against a plain reference, and the thread that reads ahead."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

from dataset.hashing import splitmix64
from dataset.sampling.eval_batches import EvalBatches
from dataset.sampling.interval_plan import IntervalPlan, interval_seed, plan_interval
from dataset.sampling.joined import Batch
from dataset.sampling.sampler import BatchSampler
from dataset.storage import PuzzleLayout
from tests.builders.splits import FakeSplit, examples_of, seeds_of
from utils.errors import DataError, SettingError

GROUPS = [[3, 3, 2], [5], [1, 4], [2, 2, 2, 2], [7, 6]]
MASK = (1 << 64) - 1


def joined(*splits: FakeSplit) -> list[Any]:
    """Splits for a reader that asks for those of `dataset.storage`."""
    return list(splits)


def sampler(
    groups: list[list[int]] = GROUPS, batch: int = 8, epochs: int = 20, seed: int = 3, **rest: Any
) -> BatchSampler:
    return BatchSampler(joined(FakeSplit(groups)), batch, epochs, seed, **rest)


def plain_splitmix64(x: int) -> int:
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def plain_visits(split: FakeSplit, epochs: int, seed: int, interval: int) -> list[list[int]]:
    """The puzzles visited in each epoch, drawn one by one with NumPy's generator."""
    rng = np.random.default_rng((seed, interval))
    order = np.arange(len(split.group_indices) - 1)
    visited = []
    for _ in range(epochs):
        rng.shuffle(order)
        visited.append([int(rng.integers(split.group_indices[g], split.group_indices[g + 1])) for g in order])
    return visited


def plain_batches(
    split: FakeSplit, batch_size: int, epochs: int, seed: int, interval: int
) -> list[list[tuple[int, int]]]:
    """Every full batch as (example, visit seed) rows: append example by example, cut where the batch is full."""
    base = plain_splitmix64(plain_splitmix64(seed) ^ interval)
    batches, batch = [], []
    for visit, puzzle in enumerate(p for epoch in plain_visits(split, epochs, seed, interval) for p in epoch):
        visit_seed = plain_splitmix64(plain_splitmix64(base) ^ visit)
        examples = list(range(split.puzzle_indices[puzzle], split.puzzle_indices[puzzle + 1]))
        draw = visit_seed ^ 0xD1B54A32D192ED03
        for i in range(len(examples)):
            draw = plain_splitmix64(draw)
            j = i + draw % (len(examples) - i)
            examples[i], examples[j] = examples[j], examples[i]
        for example in examples:
            batch.append((example, visit_seed))
            if len(batch) == batch_size:
                batches.append(batch)
                batch = []
                break  # the rest of this puzzle is dropped
    return batches


def rows(batch: Batch) -> list[tuple[int, int]]:
    return list(zip(examples_of(batch.inputs).tolist(), seeds_of(batch.inputs).tolist(), strict=True))


def same(a: Batch, b: Batch) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("inputs", "labels", "puzzle_identifiers")
    )


def all_visits(plan: IntervalPlan) -> np.ndarray:
    """The puzzle of each visit of an interval."""
    return plan.drawn.visits(0, plan.drawn.count).puzzles


def prefetch_threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


def test_splitmix64_gives_the_published_sequence() -> None:
    # The first outputs of the reference implementation from state 0.
    assert int(splitmix64(np.uint64(0))) == 0xE220A8397B1DCDAF
    assert int(splitmix64(np.uint64(0x9E3779B97F4A7C15))) == 0x6E789E6AA1B965F4
    for x in (1, 2**63, MASK):
        assert int(splitmix64(np.uint64(x))) == plain_splitmix64(x)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 13, 64])
@pytest.mark.parametrize("interval", [0, 5])
def test_batches_are_those_of_the_plain_reference(batch_size: int, interval: int) -> None:
    expected = plain_batches(FakeSplit(GROUPS), batch_size, 20, 3, interval)
    ours = sampler(batch=batch_size)
    assert ours.num_steps(interval) == len(expected)
    assert [rows(ours.batch(interval, step)) for step in range(ours.num_steps(interval))] == expected


def test_labels_and_identifiers_belong_to_the_examples() -> None:
    split = FakeSplit(GROUPS, first_identifier=40)
    batch = BatchSampler(joined(split), 16, 5, 0).batch(0, 1)
    assert batch.inputs.dtype == batch.labels.dtype == np.uint8
    assert batch.puzzle_identifiers.dtype == np.int32
    np.testing.assert_array_equal(batch.labels, batch.inputs + np.uint8(1))
    puzzles = np.searchsorted(split.puzzle_indices, examples_of(batch.inputs), side="right") - 1
    np.testing.assert_array_equal(batch.puzzle_identifiers, split.puzzle_identifiers[puzzles])


def test_an_epoch_visits_every_group_once() -> None:
    split = FakeSplit(GROUPS)
    plan = plan_interval(split.layout, 8, 50, 1, 0)
    groups = np.searchsorted(split.group_indices, all_visits(plan), side="right") - 1
    epochs = groups.reshape(50, len(GROUPS))
    assert all(sorted(epoch) == list(range(len(GROUPS))) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 25


def test_the_puzzle_of_a_visit_is_uniform_in_its_group_and_the_order_of_its_examples_too() -> None:
    ours = sampler([[3] * 5], batch=3, epochs=6000)
    batches = [ours.batch(0, step) for step in range(6000)]
    orders = Counter(tuple(examples_of(b.inputs) % 3) for b in batches)
    puzzles = Counter(int(b.puzzle_identifiers[0]) for b in batches)
    assert len(orders) == 6
    assert len(puzzles) == 5
    for counts, outcomes in ((orders, 6), (puzzles, 5)):
        expected = 6000 / outcomes
        chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
        assert chi_squared < 25, counts  # p < 2e-4 for 5 degrees of freedom


def test_a_puzzle_that_does_not_fit_is_cut_and_its_rest_dropped() -> None:
    ours = sampler([[5]], batch=8, epochs=5)
    assert ours.num_steps(0) == 2  # 5 + 3 of 5, again, and one visit left over
    for step in range(2):
        batch = ours.batch(0, step)
        seeds = seeds_of(batch.inputs)
        assert len(set(seeds[:5])) == len(set(seeds[5:])) == 1
        assert seeds[0] != seeds[5]
        assert sorted(examples_of(batch.inputs)[:5]) == [0, 1, 2, 3, 4]
        assert len(set(examples_of(batch.inputs)[5:])) == 3


def test_a_puzzle_larger_than_the_batch_fills_it_alone() -> None:
    ours = sampler([[100]], batch=8, epochs=4)
    assert ours.num_steps(0) == 4
    assert len(set(examples_of(ours.batch(0, 3).inputs).tolist())) == 8


def test_no_steps_where_the_examples_do_not_fill_a_batch() -> None:
    assert sampler([[3]], batch=8, epochs=2).num_steps(0) == 0
    assert sampler([[4]], batch=8, epochs=2).num_steps(0) == 1
    assert sampler(epochs=0).num_steps(0) == 0


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_global_batch_does_not_depend_on_the_number_of_ranks(world_size: int) -> None:
    alone = sampler()
    ranks = [sampler(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {r.total_steps(2) for r in ranks} == {alone.total_steps(2)}
    for step in range(alone.num_steps(1)):
        shares = [r.batch(1, step) for r in ranks]
        assert [len(share.inputs) for share in shares] == [8 // world_size] * world_size
        joined = Batch(
            np.concatenate([s.inputs for s in shares]),
            np.concatenate([s.labels for s in shares]),
            np.concatenate([s.puzzle_identifiers for s in shares]),
        )
        assert same(joined, alone.batch(1, step))


def test_the_same_seed_gives_the_same_batches_and_another_seed_or_interval_does_not() -> None:
    a, b, c = sampler(), sampler(), sampler(seed=4)
    assert same(a.batch(0, 2), b.batch(0, 2))
    assert not same(a.batch(0, 2), c.batch(0, 2))
    assert not same(a.batch(0, 2), a.batch(1, 2))
    assert interval_seed(3, 0) != interval_seed(3, 1)


def test_total_steps_is_the_sum_of_the_intervals() -> None:
    ours = sampler()
    assert ours.total_steps(4) == sum(len(list(ours.stream(interval))) for interval in range(4))


def test_random_access_is_the_stream_from_any_step() -> None:
    ours, other = sampler(), sampler()
    streamed = list(ours.stream(2))
    assert len(streamed) == ours.num_steps(2)
    other.batch(0, 0)  # a plan of another interval in between
    for step in reversed(range(len(streamed))):
        assert same(streamed[step], other.batch(2, step))
    assert all(same(a, b) for a, b in zip(ours.stream(2, 3), streamed[3:], strict=True))
    assert list(ours.stream(2, len(streamed))) == []
    with pytest.raises(IndexError, match="steps"):
        ours.batch(2, len(streamed))


def test_closing_or_dropping_the_stream_ends_its_thread() -> None:
    ours = sampler(epochs=1000)
    before = prefetch_threads()
    stream = ours.stream(0)
    next(stream)
    assert prefetch_threads() == before + 1
    stream.close()
    assert prefetch_threads() == before
    for _ in ours.stream(0):
        break
    gc.collect()
    assert prefetch_threads() == before
    list(ours.stream(0, ours.num_steps(0) - 3))
    assert prefetch_threads() == before


def test_the_stream_reads_only_so_far_ahead() -> None:
    """It reads three batches ahead as soon as it can, and never a fourth."""
    depth = 3

    class Counting(FakeSplit):
        reads = taken = furthest_ahead = 0
        changed = threading.Condition()

        def read(self, *arguments: Any) -> Any:
            with self.changed:
                self.reads += 1
                self.furthest_ahead = max(self.furthest_ahead, self.reads - self.taken)
                self.changed.notify()
            return super().read(*arguments)

    split = Counting(GROUPS)
    stream = BatchSampler(joined(split), 8, 1000, 0).stream(0, depth=depth)
    for taken in range(1, 20):
        split.taken = taken
        next(stream)
        with split.changed:
            assert split.changed.wait_for(lambda taken=taken: split.reads >= taken + depth, timeout=60)  # type: ignore[misc]
    stream.close()
    assert split.furthest_ahead == depth


def test_an_error_in_the_thread_is_raised_where_its_batch_would_have_come() -> None:
    class Broken(FakeSplit):
        reads = 0

        def read(self, *arguments: Any) -> Any:
            self.reads += 1
            if self.reads == 3:
                raise OSError("disk is gone")
            return super().read(*arguments)

    before = prefetch_threads()
    stream = BatchSampler(joined(Broken(GROUPS)), 8, 100, 0).stream(0)
    next(stream)
    next(stream)
    with pytest.raises(OSError, match="disk is gone"):
        next(stream)
    assert prefetch_threads() == before


def test_several_splits_are_joined_group_by_group() -> None:
    first, second = FakeSplit([[2, 2], [3]]), FakeSplit([[4]], first_identifier=10)
    ours = BatchSampler(joined(first, second), 9, 30, 0)
    for step in range(ours.num_steps(0)):
        batch = ours.batch(0, step)
        in_second = batch.puzzle_identifiers >= 10
        assert examples_of(batch.inputs)[in_second].max(initial=-1) < 4
        puzzles = np.searchsorted(first.puzzle_indices, examples_of(batch.inputs)[~in_second], side="right") - 1
        np.testing.assert_array_equal(batch.puzzle_identifiers[~in_second], puzzles + 1)
    assert ours.num_steps(0) == 30  # 9 examples per epoch whatever the puzzles


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (FakeSplit([[1]], 10, seq_len=100), "agree in seq_len: the first has 16, number 2 of data_paths has 100"),
        (FakeSplit([[1]], 10, vocab_size=11), "agree in vocab_size"),
        (FakeSplit([[1]], 10, ignore_label_id=None), "agree in ignore_label_id"),
        (FakeSplit([[1]], 3), r"such as 3.*--puzzle-identifiers-start 13"),
    ],
)
def test_splits_that_do_not_fit_together_are_refused(second: FakeSplit, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        BatchSampler(joined(FakeSplit(GROUPS), second), 8, 1, 0)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SettingError, match="global_batch_size=8 does not divide by 3 ranks"):
        sampler(world_size=3)
    with pytest.raises(SettingError, match="data_paths"):
        BatchSampler([], 8, 1, 0)
    with pytest.raises(SettingError, match="global_batch_size=0"):
        sampler(batch=0)
    with pytest.raises(SettingError, match="seed=-1"):
        sampler(seed=-1)
    with pytest.raises(DataError, match="no puzzle"):
        sampler([[1], []])


@pytest.mark.parametrize("world_size", [1, 2])
def test_micro_batches_are_cut_from_the_global_batch(world_size: int) -> None:
    """A rank's micro-batch is its slice of the examples that all ranks compute at once."""
    alone = sampler()
    size = 4
    for rank in range(world_size):
        batch = sampler(rank=rank, world_size=world_size).batch(0, 1, micro_batch_size=size)
        share = size // world_size
        wanted = [
            row for first in range(rank * share, 8, size) for row in rows(alone.batch(0, 1))[first : first + share]
        ]
        assert rows(batch) == wanted


def test_weighted_groups_are_visited_alike_in_every_epoch() -> None:
    """The phases of groups of one weight differ: without that, every second epoch would visit all of them, or none."""
    weights = np.full(200, 0.5)
    layout = PuzzleLayout.from_counts(np.ones(200), np.ones(200))
    visits = [plan_interval(layout, 1, 1, 7, epoch, weights).drawn.count for epoch in range(10)]
    assert all(60 < number < 140 for number in visits) and sum(visits) == pytest.approx(1000, abs=100)
    for epoch in range(0, 10, 2):
        pair = [all_visits(plan_interval(layout, 1, 1, 7, i, weights)) for i in (epoch, epoch + 1)]
        assert sorted(np.concatenate(pair).tolist()) == list(range(200))


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 7, 10, 64])
def test_eval_covers_each_example_once_on_any_number_of_ranks(world_size: int, batch_size: int) -> None:
    split = FakeSplit(GROUPS)
    total = int(split.puzzle_indices[-1])
    ranks = [EvalBatches(joined(split), batch_size, r, world_size) for r in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    seen = []
    for step in zip(*ranks, strict=True):
        for examples, batch in step:
            assert examples.shape == batch.puzzle_identifiers.shape == (-(-batch_size // world_size),)
            real = examples >= 0
            np.testing.assert_array_equal(examples_of(batch.inputs)[real], examples[real])
            np.testing.assert_array_equal(seeds_of(batch.inputs)[real], 0)
            puzzles = np.searchsorted(split.puzzle_indices, examples[real], side="right") - 1
            np.testing.assert_array_equal(batch.puzzle_identifiers[real], split.puzzle_identifiers[puzzles])
            assert not batch.inputs[~real].any()
            assert not batch.labels[~real].any()
            assert not batch.puzzle_identifiers[~real].any()
            seen += examples[real].tolist()
    assert seen == list(range(total))


def test_eval_of_a_subset_and_of_several_splits() -> None:
    splits = joined(FakeSplit([[2], [3]]), FakeSplit([[4]], first_identifier=7))
    ((examples, batch),) = EvalBatches(splits, 4, examples=np.array([8, 0, 5]))
    assert examples.tolist() == [8, 0, 5, -1]
    assert examples_of(batch.inputs).tolist() == [3, 0, 0, 0]
    assert batch.puzzle_identifiers.tolist() == [7, 1, 7, 0]
    assert len(EvalBatches(splits, 4, examples=np.array([], dtype=np.int64))) == 0
    with pytest.raises(AssertionError, match="example 9 does not exist"):
        EvalBatches(splits, 4, examples=np.array([9]))
