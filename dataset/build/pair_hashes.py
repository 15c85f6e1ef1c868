"""Hashes of sets of pairs under augmentations, computed without applying any.

A pair's hash is linear in its cells: the sum over all cells of R[colour] * W[side, row, column], with random 64-bit
numbers R and W.  Grouped by original colour this is the sum over colours c of R[permutation(c)] * M[c].  The moments M
depend on the dihedral transform alone and are computed once per transform.  The hash under another permutation then
costs ten products per pair instead of a pass over all cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, permutations, product

import numba
import numpy as np

from dataset.augmentation import NUM_COLOURS, NUM_DIHEDRAL, transformed_layout
from dataset.encoding import MAX_GRID
from dataset.hashing import splitmix64
from dataset.tasks import Pair

NUM_HASHES = 2  # 128 bits: with 1e9 puzzles the chance of any false match is below 1e-20

_TABLES = np.random.default_rng(0x7A5C)
_CELL = _TABLES.integers(0, 2**64, (2, MAX_GRID, MAX_GRID, NUM_HASHES), dtype=np.uint64)
_SHAPE = _TABLES.integers(0, 2**64, (2, MAX_GRID + 1, MAX_GRID + 1, NUM_HASHES), dtype=np.uint64)
COLOUR_TABLE = _TABLES.integers(0, 2**64, (NUM_COLOURS, NUM_HASHES), dtype=np.uint64) | np.uint64(1)


def colour_moments(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the moments M of each distinct pair under each transform, uint64 [8, pairs, 10, 2], and a hash of the
    shapes of its grids, uint64 [8, pairs, 2]."""
    distinct = {tuple(b"" if g is None else (g.shape, g.tobytes()) for g in pair): pair for pair in pairs}
    moments = np.zeros((NUM_DIHEDRAL, len(distinct), NUM_COLOURS, NUM_HASHES), dtype=np.uint64)
    shapes = np.zeros((NUM_DIHEDRAL, len(distinct), NUM_HASHES), dtype=np.uint64)
    for p, pair in enumerate(distinct.values()):
        for side, grid in enumerate(pair):
            if grid is not None:
                cells = np.ascontiguousarray(grid, dtype=np.uint8).reshape(-1)
                height, width = grid.shape
                _add_grid(cells, height, width, _CELL[side], _SHAPE[side], moments[:, p], shapes[:, p])
    return moments, shapes


@numba.njit(nogil=True, cache=True)
def _add_grid(cells, height, width, cell_table, shape_table, moments, shapes):  # type: ignore[no-untyped-def]
    """Adds a grid under each transform to the moments [8, 10, 2] and the shapes [8, 2] of its pair."""
    for transform in range(NUM_DIHEDRAL):
        h, w, first, down, right = transformed_layout(height, width, transform, width)
        for k in range(NUM_HASHES):
            shapes[transform, k] += shape_table[h, w, k]
        for i in range(h):
            for j in range(w):
                colour = cells[first + i * down + j * right]
                for k in range(NUM_HASHES):
                    moments[transform, colour, k] += cell_table[i, j, k]


@numba.njit(nogil=True, cache=True)
def set_hash(moments, shapes, colour_table, colours):  # type: ignore[no-untyped-def]
    """Returns the hash of the unordered set of pairs under one transform and one permutation: two uint64."""
    first = np.uint64(0)
    second = np.uint64(0)
    for p in range(moments.shape[0]):
        a, b = shapes[p, 0], shapes[p, 1]
        for c in range(10):
            a += colour_table[colours[c], 0] * moments[p, c, 0]
            b += colour_table[colours[c], 1] * moments[p, c, 1]
        first += splitmix64(a ^ (b << np.uint64(1)))
        second += splitmix64(b + np.uint64(0x632BE59BD9B4E019))
    return first, second


def canonical_key(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Returns a 128-bit key of a set of pairs.

    Two sets have the same key if one becomes the other by a dihedral transform and a permutation of the colours 1..9,
    and otherwise only by a collision of hashes.

    Each colour has a hash of the cells where it is, which no permutation changes.  The colours are renamed in the order
    of these hashes.  Colours with equal hashes are tried in every order, and the smallest key counts.
    """
    moments, shapes = colour_moments(pairs)
    is_unique, first, second = _key_without_ties(moments, shapes, COLOUR_TABLE)
    if is_unique:
        return first, second
    return min(
        set_hash(moments[transform], shapes[transform], COLOUR_TABLE, renamed)
        for transform in range(NUM_DIHEDRAL)
        for renamed in _colour_renamings(moments[transform], shapes[transform])
    )


@numba.njit(nogil=True, cache=True)
def _key_without_ties(moments, shapes, colour_table):  # type: ignore[no-untyped-def]
    """Returns whether no two colours that occur have equal hashes under any transform; then also the two numbers of
    the key."""
    first, second = np.uint64(0), np.uint64(0)
    renamed = np.zeros(NUM_COLOURS, dtype=np.uint8)
    for transform in range(NUM_DIHEDRAL):
        keys = _colour_hashes(moments[transform], shapes[transform])
        present = np.zeros(NUM_COLOURS, dtype=np.bool_)
        for c in range(1, NUM_COLOURS):
            present[c] = moments[transform][:, c].any()
        occurring = np.int64(present.sum())
        absent = 0
        for c in range(1, NUM_COLOURS):
            if not present[c]:
                absent += 1
                renamed[c] = occurring + absent
                continue
            smaller = 0
            for other in range(1, NUM_COLOURS):
                if present[other] and other != c:
                    if keys[other] == keys[c]:
                        return False, first, second
                    smaller += keys[other] < keys[c]
            renamed[c] = 1 + smaller
        a, b = set_hash(moments[transform], shapes[transform], colour_table, renamed)
        if transform == 0 or a < first or (a == first and b < second):
            first, second = a, b
    return True, first, second


def _colour_renamings(moments: np.ndarray, shapes: np.ndarray) -> Iterator[np.ndarray]:
    """Yields what each colour becomes, uint8 [10], for every order of the colours that agrees with their hashes.

    Colours that do not occur come last.
    """
    keys = _colour_hashes(moments, shapes)
    present = [c for c in range(1, NUM_COLOURS) if moments[:, c].any()]
    absent = [c for c in range(1, NUM_COLOURS) if c not in present]
    ties = [list(tied) for _, tied in groupby(sorted(present, key=lambda c: keys[c]), key=lambda c: keys[c])]
    for order in product(*map(permutations, ties)):
        renamed = np.zeros(NUM_COLOURS, dtype=np.uint8)
        for new, old in enumerate([*(c for tied in order for c in tied), *absent], start=1):
            renamed[old] = new
        yield renamed


@numba.njit(nogil=True, cache=True)
def _colour_hashes(moments, shapes):  # type: ignore[no-untyped-def]
    """Returns a hash of the cells that each colour has in all pairs, in any order of the pairs: uint64 [10]."""
    keys = np.zeros(NUM_COLOURS, dtype=np.uint64)
    for p in range(moments.shape[0]):
        for c in range(NUM_COLOURS):
            keys[c] += splitmix64(moments[p, c, 0] ^ splitmix64(moments[p, c, 1] ^ shapes[p, 0]))
    return keys
