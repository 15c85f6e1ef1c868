"""dataset/decoding.py: canvases back to grids, many at once as one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.sections import reference
from dataset.augmentation import Augmentation
from dataset.decoding import HEADER, crop, restore_grids
from dataset.encoding import COLOUR_0
from tests.builders.grids import encode_grid

SIDE = 6

colours_with_0_first = st.permutations(range(1, 10)).map(lambda rest: (0, *rest))
augmentations = st.builds(Augmentation, st.integers(0, 7), colours_with_0_first)
grids = arrays(np.uint8, st.tuples(st.integers(1, SIDE), st.integers(1, SIDE)), elements=st.integers(0, 9))


@given(arrays(np.uint8, (SIDE * SIDE,), elements=st.sampled_from([0, 1, 2, 5, 11])))
def test_crop_is_the_reference(canvas: np.ndarray) -> None:
    height, width = reference.largest_rectangle(canvas, SIDE)
    grid = crop(canvas, SIDE)
    assert grid.shape == (height, width)
    assert np.array_equal(grid + COLOUR_0, canvas.reshape(SIDE, SIDE)[:height, :width])


@given(st.lists(st.tuples(grids, augmentations), min_size=1, max_size=5))
def test_many_grids_are_restored_as_one_by_one(pairs: list[tuple[np.ndarray, Augmentation]]) -> None:
    canvases = np.stack([encode_grid(augmentation.apply(grid), SIDE) for grid, augmentation in pairs])
    rows = restore_grids(
        canvases,
        np.array([augmentation.dihedral for _, augmentation in pairs], dtype=np.uint8),
        np.array([augmentation.colours for _, augmentation in pairs], dtype=np.uint8),
    )
    for row, canvas, (grid, augmentation) in zip(rows, canvases, pairs, strict=True):
        height, width = int(row[0]), int(row[1])
        restored = row[HEADER : HEADER + height * width].reshape(height, width)
        assert np.array_equal(restored, augmentation.invert(crop(canvas, SIDE)))
        assert np.array_equal(restored, grid)


def test_a_canvas_without_colours_has_no_grid() -> None:
    empty = np.ones((1, SIDE * SIDE), dtype=np.uint8)
    row = restore_grids(empty, np.array([1], np.uint8), np.arange(10, dtype=np.uint8)[None])[0]
    assert row[:HEADER].tolist() == [0, 0]
    assert crop(empty[0], SIDE).shape == (0, 0)
