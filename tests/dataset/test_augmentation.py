"""dataset/augmentation.py, encoding.py, planning.py and overlap.py against the plain reference."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import reference
from dataset.augmentation import DIHEDRAL_INVERSE, Augmentation, dihedral, transformed_layout
from dataset.build.distinct_augmentations import plan_augmentations, sample_augmentations
from dataset.build.duplicate_tasks import canonical_key, find_duplicates
from dataset.tasks import Pair, Task
from tests.builders.grids import encode_grid
from tests.conftest import random_task

GRID = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)

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
    with pytest.raises(ValueError):
        Augmentation.parse(name)


@given(grids, st.integers(0, 3), st.integers(0, 3))
def test_encoding_is_the_reference(grid: list[list[int]], row: int, col: int) -> None:
    side = 8
    expected, _ = reference.encode_pair([grid, grid], side, row, col)
    assert encode_grid(np.array(grid, dtype=np.uint8), side, row, col).tolist() == expected


def test_encoding_of_a_grid_that_fills_the_canvas_has_no_frame() -> None:
    assert encode_grid(np.ones((3, 3), dtype=np.uint8), 3).tolist() == [3] * 9
    with pytest.raises(ValueError, match="does not fit"):
        encode_grid(GRID, 3, row=2)


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
    one, many = plan_augmentations(tasks, 20, 7, workers=1), plan_augmentations(tasks, 20, 7, workers=3)
    assert all(np.array_equal(a, b) for a, b in zip(one, many, strict=True))
    assert np.array_equal(plan_augmentations(tasks[3:], 20, 7, workers=1)[0], one[3])
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
