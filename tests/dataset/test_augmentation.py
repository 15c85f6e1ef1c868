"""dataset/augmentation.py, encoding.py, and the sampling and comparing of augmentations in dataset/build/."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.sections import reference
from dataset.augmentation import DIHEDRAL_INVERSE, Augmentation, dihedral, transformed_layout
from dataset.build.distinct_augmentations import plan_augmentations, sample_augmentations
from dataset.build.duplicate_tasks import find_duplicates, inputs_key
from dataset.build.pair_hashes import canonical_key
from dataset.storage import splits_in_memory
from dataset.tasks import Pair, Task
from tests.conftest import random_task
from utils.errors import DataError

GRID = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)
IDENTITY = np.array([[0, *range(10)]], dtype=np.uint8)

grids = st.integers(1, 5).flatmap(
    lambda w: st.lists(st.lists(st.integers(0, 9), min_size=w, max_size=w), min_size=1, max_size=5)
)
augmentations = st.builds(
    lambda d, colours: Augmentation(d, (0, *colours)), st.integers(0, 7), st.permutations(range(1, 10))
)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (0, [[1, 2, 3], [4, 5, 6]]),
        (1, [[3, 6], [2, 5], [1, 4]]),
        (2, [[6, 5, 4], [3, 2, 1]]),
        (3, [[4, 1], [5, 2], [6, 3]]),
        (4, [[3, 2, 1], [6, 5, 4]]),
        (5, [[4, 5, 6], [1, 2, 3]]),
        (6, [[1, 4], [2, 5], [3, 6]]),
        (7, [[6, 3], [5, 2], [4, 1]]),
    ],
)
def test_dihedral_transforms_are_the_published_ones(transform: int, expected: list[list[int]]) -> None:
    assert dihedral(GRID, transform).tolist() == expected
    assert reference.transform(GRID.tolist(), transform) == expected
    assert dihedral(dihedral(GRID, transform), int(DIHEDRAL_INVERSE[transform])).tolist() == GRID.tolist()


@given(grids, augmentations)
def test_augmentation_is_the_reference_and_inverts(grid: list[list[int]], augmentation: Augmentation) -> None:
    recoloured = [[augmentation.colours[cell] for cell in row] for row in grid]
    applied = augmentation.apply(np.array(grid, dtype=np.uint8))
    assert applied.tolist() == reference.transform(recoloured, augmentation.dihedral)
    assert augmentation.invert(applied).tolist() == grid


@given(grids, st.integers(0, 7))
def test_layout_reads_a_grid_as_its_transform(grid: list[list[int]], transform: int) -> None:
    array = np.array(grid, dtype=np.uint8)
    h, w, first, down, right = transformed_layout(*array.shape, transform, array.shape[1])
    read = [[array.flat[first + r * down + c * right] for c in range(w)] for r in range(h)]
    assert read == reference.transform(grid, transform)


@given(augmentations, st.text(min_size=1).filter(lambda name: "|||" not in name and not name.endswith("|")))
def test_names_round_trip(augmentation: Augmentation, task: str) -> None:
    assert Augmentation.parse(augmentation.name(task)) == (task, augmentation)


def test_names_are_the_published_ones() -> None:
    assert Augmentation().name("0a1b") == "0a1b"
    assert Augmentation(3, (0, 2, 1, 3, 4, 5, 6, 7, 8, 9)).name("0a1b") == "0a1b|||t3|||0213456789"


@pytest.mark.parametrize(
    "name", ["a|||t8|||0123456789", "a|||t1|||012345678", "a|||t1|||1023456789", "|||t1|||0123456789"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(DataError):
        Augmentation.parse(name)


@given(grids, grids, augmentations, st.integers(5, 8), st.integers(0, 2**64 - 1))
def test_encoding_is_the_reference(
    asked: list[list[int]], answer: list[list[int]], augmentation: Augmentation, side: int, seed: int
) -> None:
    """An augmented pair with the other two of its task at their offsets; canvases of 5 may be filled to their end."""
    pair = (np.array(asked, dtype=np.uint8), np.array(answer, dtype=np.uint8))
    task = Task("t", "", (pair, (GRID, GRID), (GRID, GRID)), ((GRID, None),))
    rows = np.array([[0, *range(10)], [augmentation.dihedral, *augmentation.colours]], dtype=np.uint8)
    train, test, _ = splits_in_memory([task], {"t"}, [rows], side)
    inputs, labels = train.read(np.array([3, 4, 5]), np.full(3, seed, dtype=np.uint64))
    applied = [[augmentation.apply(grid).tolist() for grid in pair], *[[augmentation.apply(GRID).tolist()] * 2] * 2]
    offsets = set()
    for grids_of, input_row, label_row in zip(applied, inputs, labels, strict=True):
        row, col = (int(place) for place in np.argwhere(input_row.reshape(side, side) >= 2)[0])
        offsets.add((row, col))
        assert (input_row.tolist(), label_row.tolist()) == reference.encode_pair(grids_of, side, row, col)
    assert (0, 0) in offsets  # one of a visit is not shifted
    assert test.read(np.array([0]))[0].tolist()[0] == reference.encode_pair([GRID.tolist()] * 2, side, 0, 0)[0]


def test_encoding_of_a_grid_that_fills_the_canvas_has_no_frame() -> None:
    full = np.ones((3, 3), dtype=np.uint8)
    train, _, _ = splits_in_memory([Task("t", "", ((full, full),), ())], set(), [IDENTITY], 3)
    assert [rows.tolist() for rows in train.read(np.array([0]))] == [[[3] * 9]] * 2


def content(task: Task, augmentation: Augmentation) -> frozenset[tuple[bytes, ...]]:
    """The unordered set of a puzzle's pairs."""
    return frozenset(
        tuple(
            b"" if grid is None else bytes(augmentation.apply(grid).shape) + augmentation.apply(grid).tobytes()
            for grid in pair
        )
        for pair in task.pairs
    )


def as_augmentations(rows: np.ndarray) -> list[Augmentation]:
    return [Augmentation(int(row[0]), tuple(int(c) for c in row[1:])) for row in rows]


@pytest.mark.parametrize("seed", range(3))
def test_chosen_augmentations_are_distinct_puzzles(seed: int) -> None:
    task = random_task(f"task{seed}", np.random.default_rng(seed), side=3)
    chosen = as_augmentations(sample_augmentations(task, 200, seed))
    assert chosen[0] == Augmentation()
    assert len({content(task, augmentation) for augmentation in chosen}) == len(chosen) == 201


def symmetric_task(colours: int) -> Task:
    """Every transform gives the same task, so that only the colours tell puzzles apart."""
    pairs: list[Pair] = [
        (np.full((2, 2), c, dtype=np.uint8), np.full((1, 1), c, dtype=np.uint8)) for c in range(1, colours + 1)
    ]
    return Task("symmetric", "made", tuple(pairs), ())


@pytest.mark.parametrize(("colours", "exist"), [(1, 9), (2, 36), (9, 1)])
def test_puzzles_are_unordered_sets_of_pairs(colours: int, exist: int) -> None:
    """Of a task that is the set of its n colours there are 9-choose-n puzzles, and the search ends."""
    assert len(sample_augmentations(symmetric_task(colours), 1000, 0)) == exist


def test_a_colour_that_is_nowhere_makes_no_puzzle() -> None:
    """Of a black task there are as many puzzles as orientations."""
    grid = np.zeros((1, 2), dtype=np.uint8)
    assert len(sample_augmentations(Task("black", "made", ((grid, grid),), ()), 1000, 0)) == 2


def test_choice_depends_on_seed_and_task_alone() -> None:
    rng = np.random.default_rng(0)
    tasks = [random_task(f"t{i}", rng) for i in range(5)]
    one, many = (plan_augmentations(tasks, [20] * len(tasks), 7, workers) for workers in (1, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, many, strict=True))
    assert np.array_equal(plan_augmentations(tasks[3:], [20] * len(tasks[3:]), 7, workers=1)[0], one[3])
    assert not np.array_equal(sample_augmentations(tasks[0], 20, 8), one[0])


def test_transforms_and_colours_are_drawn_evenly() -> None:
    rows = sample_augmentations(random_task("t", np.random.default_rng(0)), 8000, 0)[1:]
    assert np.bincount(rows[:, 0], minlength=8).min() > 850
    for colour in range(1, 10):
        assert np.bincount(rows[:, 1 + colour], minlength=10)[1:].min() > 750
    assert not rows[:, 1].any()


@settings(max_examples=40)
@given(augmentations, st.randoms(use_true_random=False), st.integers(0, 100))
def test_a_task_is_found_under_any_name_augmentation_and_order(augmentation: Augmentation, random, seed: int) -> None:  # type: ignore[no-untyped-def]
    task = random_task("original", np.random.default_rng(seed), train=3, test=1)
    pairs = [(augmentation.apply(a), augmentation.apply(b)) for a, b in task.pairs]
    random.shuffle(pairs)
    disguised = Task("disguised", "other", tuple(pairs[:2]), tuple(pairs[2:]))
    assert canonical_key(task.pairs) == canonical_key(disguised.pairs)
    assert find_duplicates([disguised], [task]) == [("original", "disguised")]


def test_another_output_is_another_task() -> None:
    task = random_task("a", np.random.default_rng(0))
    changed = task.train[0][1].copy()
    changed[0, 0] = (changed[0, 0] + 1) % 10
    other = replace(task, id="b", train=((task.train[0][0], changed), *task.train[1:]))
    assert find_duplicates([other], [task]) == []
    unknown = replace(other, test=tuple((grid, None) for grid, _ in other.test))
    assert find_duplicates([unknown], [task]) == [("a", "b")]  # cannot be told apart, so it is reported


def test_keys_of_all_small_grids_are_those_of_their_orbits() -> None:
    """Every 2 x 2 grid of three colours: equal keys if and only if one is an augmentation of the other."""
    everything = [np.array(cells, dtype=np.uint8).reshape(2, 2) for cells in itertools.product(range(3), repeat=4)]
    some = [Augmentation(d, (0, *p, *range(3, 10))) for d in range(8) for p in ((1, 2), (2, 1))]

    def relabelled(grid: np.ndarray) -> bytes:
        names = {0: 0}
        for cell in grid.flat:
            names.setdefault(int(cell), len(names))
        return bytes(names[int(cell)] for cell in grid.flat)

    keys = [canonical_key([(grid, None)]) for grid in everything]
    orbits = [min(relabelled(a.apply(grid)) for a in some) for grid in everything]
    assert all((keys[i] == keys[j]) == (orbits[i] == orbits[j]) for i in range(81) for j in range(i))


def test_colours_that_lie_alike_are_renamed_in_every_order() -> None:
    """Over both pairs 1 and 2 have the same cells, and so do 3 and 4: no hash of one colour tells them apart."""
    first, second = np.array([[1, 2, 0], [3, 0, 0]]), np.array([[2, 1, 0], [4, 0, 0]])

    def key(names: tuple[int, ...]) -> tuple[int, int]:
        table = np.array([0, *names, *range(5, 10)], dtype=np.uint8)
        return canonical_key([(table[first], None), (table[second], None)])

    assert {key(names) for names in itertools.permutations((1, 2, 3, 4))} == {key((1, 2, 3, 4))}
    other = canonical_key([(first.astype(np.uint8), None), (np.array([[2, 1, 0], [3, 0, 0]], dtype=np.uint8), None)])
    assert other != key((1, 2, 3, 4))


def test_the_key_of_inputs_is_that_of_any_augmentation_and_order() -> None:
    task = random_task("a", np.random.default_rng(1), train=3, test=2)
    augmentation = Augmentation(3, (0, 9, 8, 7, 6, 5, 4, 3, 2, 1))
    pairs = [(augmentation.apply(grid), None) for grid, _ in task.pairs][::-1]
    assert inputs_key(Task("b", "", (), tuple(pairs))) == inputs_key(task)
    assert len(inputs_key(task)) == 32 and int(inputs_key(task), 16) > 0
    changed = pairs[0][0].copy()
    changed[0, 0] = (changed[0, 0] + 1) % 10
    assert inputs_key(Task("b", "", (), ((changed, None), *pairs[1:]))) != inputs_key(task)
