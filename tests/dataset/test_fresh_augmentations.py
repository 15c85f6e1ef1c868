"""dataset/sampling/fresh_augmentations.py, and which task and augmentation a batch says that its examples are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataset import storage
from dataset.augmentation import IDENTITY_ROW, Augmentation
from dataset.build.distinct_augmentations import sample_augmentations
from dataset.canvas import Canvas, fit_canvases
from dataset.decoding import restore_grids
from dataset.sampling.bucket_streams import BucketStreams, Position, measure_demand
from dataset.sampling.eval_batches import EvalBatches
from dataset.sampling.fresh_augmentations import draw_augmentations
from dataset.sampling.joined import Batch, JoinedSplits
from dataset.sampling.sampler import BatchSampler
from dataset.storage import AugmentedTasks, DataOrigin, Split, write_data_set
from dataset.tasks import Task
from tests.conftest import random_task
from utils.errors import SettingError

SIDE, AUGMENTATIONS = 8, 3


def tasks_of(seed: int, count: int = 5) -> list[Task]:
    rng = np.random.default_rng(seed)
    return [random_task(f"{seed}-{i}", rng, side=6, train=3) for i in range(count)]


def splits_of(tasks: list[Task]) -> tuple[Split, Split, storage.PuzzleCatalog]:
    rows = [sample_augmentations(task, AUGMENTATIONS, 0) for task in tasks]
    return storage.splits_in_memory(tasks, {tasks[1].id, tasks[3].id}, rows, side=SIDE)


def grids_of(batch: Batch) -> list[bytes]:
    """The inputs of a batch with the augmentation undone that it says; corners at (0, 0) only."""
    assert batch.augmentations is not None
    restored = restore_grids(batch.inputs, batch.augmentations[:, 0].copy(), batch.augmentations[:, 1:].copy())
    return [row.tobytes() for row in restored]


def identities_of(split: Split | JoinedSplits) -> storage.PuzzleIdentities:
    """The task and the augmentation of each puzzle."""
    return split.identities(np.arange(split.layout.num_puzzles))


def inputs_of(task: Task) -> set[bytes]:
    found = set()
    for grid, _ in task.pairs:
        row = np.zeros(2 + SIDE**2, dtype=np.uint8)
        row[:2], row[2 : 2 + grid.size] = grid.shape, grid.reshape(-1)
        found.add(row.tobytes())
    return found


def test_an_augmentation_follows_from_the_visits_seed_and_all_are_equally_probable() -> None:
    seeds = np.arange(40_000, dtype=np.uint64)
    drawn = draw_augmentations(seeds)
    assert np.array_equal(drawn, draw_augmentations(seeds))
    assert np.array_equal(drawn[17:18], draw_augmentations(seeds[17:18]))
    assert (drawn[:, 1] == 0).all() and (np.sort(drawn[:, 1:], axis=1) == np.arange(10)).all()
    assert np.allclose(np.bincount(drawn[:, 0]) / 40_000, 1 / 8, atol=0.01)
    for colour in range(1, 10):
        assert np.allclose(np.bincount(drawn[:, 1 + colour], minlength=10)[1:] / 40_000, 1 / 9, atol=0.01)
    assert len(np.unique(drawn, axis=0)) > 39_000  # of 2.9 million


def test_a_fresh_example_is_its_task_under_the_augmentation_that_the_batch_says() -> None:
    tasks = tasks_of(0)
    train, _, catalog = splits_of(tasks)
    data = JoinedSplits([train], identified=True, fresh=True)
    examples = np.arange(data.num_examples)
    puzzles = data.layout.puzzles_of(examples)
    batch = data.read_batch(examples, puzzles, np.full(len(examples), 7, dtype=np.uint64) + puzzles.astype(np.uint64))
    assert batch.tasks is not None and batch.augmentations is not None
    assert not batch.puzzle_identifiers.any()  # no row of its own
    assert np.array_equal(batch.tasks - 1, catalog.tasks_of(data.identifiers_of(puzzles)))
    stored = {row.tobytes() for row in identities_of(data).augmentations}
    assert not stored & {row.tobytes() for row in batch.augmentations}
    unshifted = batch.inputs[:, 0] > 1  # a colour in the corner
    found = grids_of(batch)
    for n in np.flatnonzero(unshifted):
        assert found[n] in inputs_of(tasks[batch.tasks[n] - 1])
    assert unshifted.sum() >= len(np.unique(puzzles))  # one example of each visit is not shifted


def test_visits_draw_again_and_ranks_and_resumed_runs_see_the_same() -> None:
    train, _, _ = splits_of(tasks_of(0))
    options = {"identified": True, "fresh": True}
    whole = BatchSampler([train], 8, 40, seed=3, **options)
    halves = [BatchSampler([train], 8, 40, 3, rank, 2, **options) for rank in range(2)]
    other = BatchSampler([train], 8, 40, seed=4, **options)
    seen: dict[int, set[bytes]] = {}
    for step in range(whole.num_steps(0)):
        batch = whole.batch(0, step)
        parts = [half.batch(0, step) for half in halves]
        for name in ("inputs", "labels", "tasks", "augmentations"):
            both = np.concatenate([getattr(part, name) for part in parts])
            assert np.array_equal(getattr(batch, name), both), name
        assert batch.tasks is not None and batch.augmentations is not None
        for task, row in zip(batch.tasks.tolist(), batch.augmentations, strict=True):
            seen.setdefault(task, set()).add(row.tobytes())
    assert not np.array_equal(whole.batch(0, 0).augmentations, other.batch(0, 0).augmentations)
    assert min(map(len, seen.values())) > 5 * AUGMENTATIONS  # more than are stored
    plain = BatchSampler([train], 8, 40, seed=3)
    assert plain.num_steps(0) == whole.num_steps(0)
    assert plain.batch(0, 0).tasks is None


def test_a_canvas_holds_every_fresh_augmentation_of_its_examples() -> None:
    """A 1 x 6 grid may become 6 x 1, so a canvas that is wide but not high does not hold it."""
    rng = np.random.default_rng(0)
    grid = rng.integers(1, 10, (1, 6)).astype(np.uint8)
    task = Task("wide", "made", ((grid, grid), (grid[:, ::-1].copy(), grid)), ((grid, grid),))
    train, _, _ = storage.splits_in_memory([task], {"wide"}, [IDENTITY_ROW[None]], side=SIDE)
    canvases = (Canvas(2, 7), Canvas(7, 7), Canvas(8, 8))
    stored, fresh = (JoinedSplits([train], identified=True, fresh=on) for on in (False, True))
    assert BucketStreams(stored, canvases, 0).fractions.tolist() == [1, 0, 0]
    streams = BucketStreams(fresh, canvases, 0)
    assert streams.fractions.tolist() == [0, 1, 0]
    batches = [batch for _, (batch, _) in zip(range(20), streams.stream(1, 4, Position()), strict=False)]
    transforms = np.concatenate([batch.augmentations[:, 0] for batch in batches if batch.augmentations is not None])
    assert set(transforms.tolist()) == set(range(8))
    colours = [(batch.inputs > 1).sum(1) for batch in batches]
    assert (np.concatenate(colours) == 6).all()  # no cell was cut off
    sizes, visits = measure_demand(fresh)
    assert (sizes == 7).all()
    assert fit_canvases(sizes, visits, Canvas(8, 8), cost=float)[0] == Canvas(7, 7)


def test_tasks_have_the_same_numbers_in_both_splits_both_formats_and_beside_other_data(tmp_path: Path) -> None:
    tasks, more = tasks_of(0), tasks_of(1, count=4)
    train, test, catalog = splits_of(tasks)
    for split in (train, test, test.first_puzzles(2), train.restricted_to(test.puzzle_identifiers)):
        identities = identities_of(split)
        assert split.num_tasks == 5
        for number, row, identifier in zip(
            identities.tasks, identities.augmentations, split.puzzle_identifiers, strict=True
        ):
            name, augmentation = catalog.lookup(int(identifier))
            assert name == tasks[number - 1].id
            assert augmentation == Augmentation(int(row[0]), tuple(row[1:].tolist()))
    rows = [sample_augmentations(task, AUGMENTATIONS, 0) for task in tasks]
    content = AugmentedTasks(tasks, {tasks[1].id, tasks[3].id}, rows, SIDE)
    for split_name, split in (("train", train), ("test", test)):
        folder = tmp_path / split_name
        write_data_set(folder, content, DataOrigin(["made"], {}), fmt="expanded", seed=0, progress=lambda *_: None)
        expanded = storage.open_split(folder, split_name)
        for mine, theirs in zip(identities_of(split), identities_of(expanded), strict=True):
            assert np.array_equal(mine, theirs)
        with pytest.raises(SettingError, match="needs ARC tasks in the compact format"):
            JoinedSplits([expanded], fresh=True)

    second = storage.splits_in_memory(more, set(), [sample_augmentations(task, 2, 0) for task in more], side=SIDE)[0]
    second.identifiers_start = 100  # type: ignore[attr-defined]
    joined = JoinedSplits([train, second], identified=True)
    assert joined.num_task_rows == 1 + 5 + 4
    assert set(identities_of(joined).tasks.tolist()) == set(range(1, 10))
    assert JoinedSplits([train]).num_task_rows is None


def test_evaluation_batches_say_tasks_and_blank_rows_are_the_identity() -> None:
    _, test, catalog = splits_of(tasks_of(0))
    ((examples, batch),) = EvalBatches([test], 12, identified=True)
    assert batch.tasks is not None and batch.augmentations is not None
    is_used = examples >= 0
    assert is_used.any() and not is_used.all()
    used = batch.puzzle_identifiers[is_used]
    assert np.array_equal(batch.tasks[is_used], catalog.tasks_of(used) + 1)
    assert np.array_equal(batch.augmentations[is_used], catalog.augmentations_of(used))
    assert not batch.tasks[~is_used].any() and (batch.augmentations[~is_used] == IDENTITY_ROW).all()
