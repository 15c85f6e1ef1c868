"""Checks that the files of a data set fit together.  Kernels read the arrays without bounds checks, so that everything
they index is checked here, once, when a data set is opened."""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from dataset.augmentation import NUM_COLOURS, NUM_DIHEDRAL
from dataset.storage.compact import CompactArrays
from dataset.storage.schema import (
    AUGMENTATIONS,
    GRIDS,
    GROUP_WEIGHTS,
    PAIRS,
    SPLIT_METADATA,
    TASKS,
    VISIT_SIZES,
    SplitMetadata,
    TaskList,
    array_path,
)
from utils.errors import DataError

ROWS_AT_ONCE = 1 << 22
"""Augmentations are checked in blocks of so many."""

REMEDY = "build the data set again"


class ExpandedSet(NamedTuple):
    """The arrays of one set of an expanded split; weights float64 [groups], visit_sizes int64 [groups]."""

    inputs: np.ndarray
    labels: np.ndarray
    puzzle_identifiers: np.ndarray
    puzzle_indices: np.ndarray
    group_indices: np.ndarray
    group_weights: np.ndarray
    visit_sizes: np.ndarray | None = None


def _refuse_first(checks: list[tuple[bool, str]]) -> None:
    """Raises DataError with the sentence of the first check that failed."""
    for holds, sentence in checks:
        if not holds:
            raise DataError(f"{sentence}: {REMEDY}")


def check_range(path: Path, array: np.ndarray, dtype: type) -> None:
    """Raises DataError if a number of an array does not fit into the integers of `dtype`.  It reads 2^20 numbers at a
    time."""
    limits = np.iinfo(dtype)
    flat = array.reshape(-1)
    for first in range(0, len(flat), 1 << 20):
        part = flat[first : first + (1 << 20)]
        if part.min() < limits.min or part.max() > limits.max:
            wrong = next(int(value) for value in part if not limits.min <= value <= limits.max)
            raise DataError(
                f"{path} has the type {array.dtype} and the number {wrong}, which does not fit into "
                f"{np.dtype(dtype)}: {REMEDY}"
            )


def check_task_list(directory: Path, listed: TaskList) -> None:
    """Raises DataError if a task has more demonstrations than pairs, or generated pairs are of no training task."""
    for task in listed.tasks:
        if task.demonstrations > task.pairs:
            raise DataError(
                f"{directory / TASKS}: task {task.id!r} has {task.demonstrations} demonstrations but {task.pairs} "
                f"pairs: {REMEDY}"
            )
    for entry in listed.generated:
        if entry.task >= len(listed.tasks) or listed.tasks[entry.task].test_split:
            raise DataError(
                f"{directory / TASKS}: generated pairs are of task number {entry.task}, which is none of the training "
                f"tasks: {REMEDY}"
            )


def check_augmentations(directory: Path, listed: TaskList, augmentations: np.ndarray) -> None:
    """Checks that there is one row for each puzzle, and that each row is an augmentation.

    Raises:
        DataError: naming the file.
    """
    puzzles, shape = int(listed.numbers()[:, 2].sum()), augmentations.shape
    if shape != (puzzles, 1 + NUM_COLOURS):
        raise DataError(
            f"{directory}: {AUGMENTATIONS} has the shape {shape}, but {TASKS} counts {puzzles} puzzles: {REMEDY}"
        )
    first_bad = -1
    for first in range(0, puzzles, ROWS_AT_ONCE):
        if first_bad < 0 and (bad := _first_bad_row(augmentations[first : first + ROWS_AT_ONCE])) >= 0:
            first_bad = first + bad
        if isinstance(augmentations.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            augmentations.base.madvise(mmap.MADV_DONTNEED)  # they stay in the page cache, but are not of this process
    is_dihedral = first_bad < 0 or bool(augmentations[first_bad, 0] < NUM_DIHEDRAL)
    _refuse_first(
        [
            (
                is_dihedral,
                f"{directory / AUGMENTATIONS} has a dihedral transform that is not in 0..{NUM_DIHEDRAL - 1}",
            ),
            (
                first_bad < 0,
                f"{directory / AUGMENTATIONS} has colours that are not a permutation of 0..9 that keeps 0",
            ),
        ]
    )


@numba.njit(nogil=True, cache=True)
def _first_bad_row(augmentations):  # type: ignore[no-untyped-def]
    """Returns the first row that is not an augmentation, -1 if all are."""
    for n in range(len(augmentations)):
        seen = 0
        for c in range(1, 1 + NUM_COLOURS):
            colour = min(int(augmentations[n, c]), NUM_COLOURS)
            seen |= 1 << colour
        if seen != (1 << NUM_COLOURS) - 1 or augmentations[n, 1] != 0 or augmentations[n, 0] >= NUM_DIHEDRAL:
            return n
    return -1


def check_compact(directory: Path, arrays: CompactArrays, listed: TaskList, metadata: SplitMetadata) -> None:
    """Checks the arrays of a compact data set against its list of tasks and the metadata of a split.

    Raises:
        DataError: naming the files that do not fit together.
    """
    check_augmentations(directory, listed, arrays.augmentations)
    pairs = int(listed.numbers()[:, 1].sum()) + sum(entry.pairs for entry in listed.generated)
    if arrays.pairs.shape != (pairs, 6):
        raise DataError(
            f"{directory}: {PAIRS} has the shape {arrays.pairs.shape}, but {TASKS} counts {pairs} pairs: {REMEDY}"
        )
    rows = np.asarray(arrays.pairs, dtype=np.int64)
    side = math.isqrt(metadata.seq_len)
    identifiers = listed.puzzle_identifiers_start + len(arrays.augmentations)
    ends = rows[:, [0, 3]] + rows[:, [1, 4]] * rows[:, [2, 5]]
    _refuse_first(
        [
            (
                side * side == metadata.seq_len,
                f"{directory}: {SPLIT_METADATA} has seq_len {metadata.seq_len}, which is not a square",
            ),
            (
                metadata.num_puzzle_identifiers == identifiers,
                f"{directory}: {SPLIT_METADATA} counts {metadata.num_puzzle_identifiers} identifiers, but {TASKS} and "
                f"{AUGMENTATIONS} make {identifiers}",
            ),
            (bool((rows >= 0).all()), f"{directory / PAIRS} has a negative number"),
            (
                bool((rows[:, [1, 2, 4, 5]] <= side).all()),
                f"{directory / PAIRS} has a grid larger than the canvas of {side} x {side}",
            ),
            (
                int(ends.max(initial=0)) <= len(arrays.grids),
                f"{directory}: {PAIRS} points behind the {len(arrays.grids)} cells of {GRIDS}",
            ),
            (
                bool((np.asarray(arrays.grids) < NUM_COLOURS).all()),
                f"{directory / GRIDS} has a colour that is not in 0..9",
            ),
        ]
    )


def check_expanded_set(folder: Path, name: str, arrays: ExpandedSet, metadata: SplitMetadata) -> None:
    """Checks the arrays of one set of an expanded split.

    Raises:
        DataError: naming the files that do not fit together.
    """
    inputs, labels, identifiers, puzzles, groups, weights, visit_sizes = arrays

    def file(part: str) -> str:
        return str(array_path(folder, name, part))

    _refuse_first(
        [
            (
                inputs.shape == labels.shape,
                f"{file('inputs')} has the shape {inputs.shape}, but labels has {labels.shape}",
            ),
            (
                inputs.shape[1] == metadata.seq_len,
                f"{file('inputs')} has {inputs.shape[1]} tokens per example, but {SPLIT_METADATA} has seq_len "
                f"{metadata.seq_len}",
            ),
            (
                len(puzzles) == len(identifiers) + 1,
                f"{file('puzzle_indices')} has {len(puzzles)} entries, but puzzle_identifiers has {len(identifiers)}, "
                "not one less",
            ),
            (
                bool(len(puzzles)) and puzzles[0] == 0 and puzzles[-1] == len(inputs) and _rises(puzzles),
                f"{file('puzzle_indices')} does not rise from 0 to the {len(inputs)} examples of inputs",
            ),
            (
                bool(len(groups)) and groups[0] == 0 and groups[-1] == len(identifiers) and _rises(groups),
                f"{file('group_indices')} does not rise from 0 to the {len(identifiers)} puzzles of puzzle_identifiers",
            ),
            (
                len(weights) == len(groups) - 1,
                f"{file(GROUP_WEIGHTS)} has {len(weights)} entries, but group_indices has {len(groups) - 1} groups",
            ),
            (
                bool(((weights > 0) & np.isfinite(weights)).all()),
                f"{file(GROUP_WEIGHTS)} has a weight that is not a positive number",
            ),
            (
                visit_sizes is None or (len(visit_sizes) == len(groups) - 1 and bool((visit_sizes > 0).all())),
                f"{file(VISIT_SIZES)} does not have a positive number for each group",
            ),
            (
                len(identifiers) == 0 or 0 <= identifiers.min() <= identifiers.max() < metadata.num_puzzle_identifiers,
                f"{file('puzzle_identifiers')} has an identifier outside of 0..{metadata.num_puzzle_identifiers - 1}",
            ),
        ]
    )


def _rises(values: np.ndarray) -> bool:
    return bool((np.diff(values) >= 0).all())
