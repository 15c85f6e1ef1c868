"""Votes of more augmentations than a data set stores: which are drawn, what they show, and how they are undone."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from dataset.augmentation import Augmentation
from dataset.build.distinct_augmentations import sample_augmentations
from dataset.sampling.eval_batches import EvalBatches
from dataset.storage import PuzzleCatalog, Split, splits_in_memory
from dataset.tasks import Task, parse_grid
from evaluators.inference.canvas_choice import suggest_sizes
from evaluators.inference.drawn_votes import extend_puzzles
from evaluators.inference.gather import order_in_rounds
from evaluators.inference.predictions import Predictions
from evaluators.voting import count_votes
from tests.conftest import random_task
from utils.errors import SubmissionError

SIDE = 6


def opened(num_aug: int, seed: int = 0) -> tuple[dict[str, Task], Split, PuzzleCatalog]:
    """Three tasks, two test inputs each; the first one has one colour in one cell, so that it looks alike often."""
    rng = np.random.default_rng(3)
    cell = parse_grid([[1]], "a cell")
    plain = Task("plain", "s", ((cell, cell),), ((cell, cell), (cell, cell)))
    tasks = [plain, *(random_task(f"t{i}", rng, test=2) for i in range(2))]
    rows = [sample_augmentations(task, num_aug, seed) for task in tasks]
    _, test, catalog = splits_in_memory(tasks, {task.id for task in tasks}, rows, SIDE)
    return {task.id: task for task in tasks}, test, catalog


def augmentations_of(split: Split) -> list[list[tuple[int, ...]]]:
    """The augmentations of each group."""
    rows = split.identities(np.arange(split.layout.num_puzzles)).augmentations
    starts = split.layout.group_starts
    return [[tuple(row) for row in rows[a:b].tolist()] for a, b in itertools.pairwise(starts)]


def predicted(split: Split, steps: int = 1) -> Predictions:
    """What a network that is always right predicts, after each of so many steps."""
    examples = np.repeat(np.arange(split.num_examples), steps)
    puzzles = split.layout.puzzles_of(examples)
    names = split.names_of(puzzles)
    return Predictions(
        tokens=split.read(examples)[1],
        q_halt=np.zeros(len(examples), np.float32),
        puzzle_identifiers=names.identifiers,
        test_index=(examples - split.layout.examples_of(puzzles)[0]).astype(np.int32),
        steps=np.tile(np.arange(1, steps + 1, dtype=np.int32), split.num_examples),
        augmentations=names.drawn,
    )


def test_a_part_of_a_split_names_its_drawn_puzzles() -> None:
    tasks, test, catalog = opened(3)
    part = extend_puzzles(test, catalog, tasks, 20, seed=7).first_puzzles(5)
    names = part.names_of(np.arange(part.layout.num_puzzles))
    of_each = part.identities(np.arange(part.layout.num_puzzles)).augmentations
    is_drawn = names.drawn.any(axis=1)
    assert np.flatnonzero(is_drawn).tolist() == np.flatnonzero(part.rounds() > 3).tolist() != []
    assert np.array_equal(names.drawn[is_drawn], of_each[is_drawn])


@pytest.mark.parametrize("stored", [0, 3])
def test_any_number_of_augmentations_votes_each_of_another_look(stored: int) -> None:
    tasks, test, catalog = opened(stored)
    found = extend_puzzles(test, catalog, tasks, 20, seed=7)
    mine, theirs = augmentations_of(found), augmentations_of(test)
    assert [len(rows) for rows in mine] == [9, 20, 20]  # one cell can have nine colours
    assert all(len(set(rows)) == len(rows) for rows in mine)
    assert [rows[: len(own)] for rows, own in zip(mine, theirs, strict=True)] == theirs
    votes = count_votes(predicted(found), catalog)
    for (name, index), candidates in votes.items():
        assert [c.votes for c in candidates] == [9 if name == "plain" else 20]
        assert np.array_equal(candidates[0].grid, tasks[name].test[index][1])
    assert len(votes) == 6


def test_what_is_drawn_follows_from_the_seed_and_the_task_alone() -> None:
    tasks, test, catalog = opened(0)
    first = augmentations_of(extend_puzzles(test, catalog, tasks, 20, seed=7))
    assert augmentations_of(extend_puzzles(test, catalog, tasks, 20, seed=7)) == first
    assert augmentations_of(extend_puzzles(test, catalog, tasks, 20, seed=8))[1:] != first[1:]
    (fewer,) = augmentations_of(extend_puzzles(test.restricted_to(catalog.identifiers_of("t1")), catalog, tasks, 9, 7))
    assert fewer == first[2][:9]
    # A data set that was built with this seed stores the first of them.
    stored = augmentations_of(opened(19, seed=7)[1])
    assert stored[1:] == first[1:]


def test_hidden_outputs_choose_nothing() -> None:
    tasks, test, catalog = opened(0)
    other = parse_grid([[2]], "a cell")  # a colour that the network is not shown would tell more puzzles apart
    solved = tasks | {"plain": replace(tasks["plain"], test=tuple((a, other) for a, _ in tasks["plain"].test))}
    unsolved = {name: replace(task, test=tuple((a, None) for a, _ in task.test)) for name, task in tasks.items()}
    both = [augmentations_of(extend_puzzles(test, catalog, of, 20, seed=7)) for of in (solved, unsolved)]
    assert both[0] == both[1]


def test_enough_stored_puzzles_and_formats_without_grids_stay(capsys: pytest.CaptureFixture[str]) -> None:
    tasks, test, catalog = opened(3)
    few = test.first_puzzles(2)
    assert extend_puzzles(few, catalog, tasks, 2, seed=7) is few
    test.takes_augmentations = False
    assert extend_puzzles(test, catalog, tasks, 9, seed=7) is test
    assert "at most 4 of a task" in capsys.readouterr().out


def test_a_drawn_puzzle_looks_as_its_augmentation_says_and_has_no_row() -> None:
    tasks, test, catalog = opened(2)
    found = extend_puzzles(test, catalog, tasks, 8, seed=7)
    sizes = suggest_sizes(found, catalog, tasks)
    order, first_round = order_in_rounds(found)
    assert first_round == 6 and sorted(order.tolist()) == list(range(found.num_examples))
    for numbers, batch in EvalBatches([found], batch_size=5, identified=True):
        for row, example in enumerate(numbers[numbers >= 0]):
            (puzzle,) = found.layout.puzzles_of(np.array([example]))
            assert batch.tasks is not None and batch.augmentations is not None
            task = tasks[catalog.task_ids[batch.tasks[row] - 1]]
            augmentation = Augmentation(
                int(batch.augmentations[row, 0]), tuple(int(colour) for colour in batch.augmentations[row, 1:])
            )
            index = int(example - found.layout.examples_of(np.array([puzzle]))[0][0])
            shown = augmentation.apply(task.test[index][0])
            canvas = batch.inputs[row].reshape(SIDE, SIDE)
            assert np.array_equal(canvas[: shown.shape[0], : shown.shape[1]], shown + 2)
            within = puzzle - found.layout.group_starts[batch.tasks[row] - 1]
            assert (batch.puzzle_identifiers[row] == 0) == (within >= 3)
            assert (sizes[example] > shown.shape).all()


def test_saved_votes_of_drawn_puzzles_are_read_pooled_and_counted_again(tmp_path: Path) -> None:
    tasks, test, catalog = opened(2)
    drawn, stored = (predicted(split, steps=2) for split in (extend_puzzles(test, catalog, tasks, 8, 7), test))
    drawn.save(tmp_path / "drawn.npz")
    stored.save(tmp_path / "stored.npz")
    assert "augmentations" not in np.load(tmp_path / "stored.npz")
    read = [Predictions.load(tmp_path / f"{name}.npz") for name in ("drawn", "stored")]
    for mine, theirs in zip(read, (drawn, stored), strict=True):
        assert all(np.array_equal(getattr(mine, f.name), getattr(theirs, f.name)) for f in fields(Predictions))
    for last, votes in ((2, 2 * (8 + 3)), (1, 8 + 3)):
        pooled = Predictions.joined([part.last(last) for part in read])
        (candidate,) = count_votes(pooled, catalog)["t0", 1]
        assert candidate.votes == votes
        assert np.array_equal(candidate.grid, tasks["t0"].test[1][1])


@pytest.mark.parametrize("column", [0, 1, 4])
def test_augmentations_that_are_none_are_refused(column: int, tmp_path: Path) -> None:
    """The kernel that undoes them would write outside of its arrays."""
    tasks, test, catalog = opened(0)
    found = predicted(extend_puzzles(test, catalog, tasks, 4, seed=7))
    assert found.augmentations is not None
    found.augmentations[5, column] = 200
    found.save(tmp_path / "damaged.npz")
    with pytest.raises(SubmissionError, match="arrays of other types or lengths"):
        Predictions.load(tmp_path / "damaged.npz")
