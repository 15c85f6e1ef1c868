"""The train or the test split of a data set: an interface, and its compact, expanded and restricted forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numba
import numpy as np

from dataset import encoding
from dataset.augmentation import IDENTITY_ROW
from dataset.canvas import Canvas
from dataset.encoding import ExampleIndex
from dataset.storage.catalog import PuzzleCatalog
from dataset.storage.schema import EXPANDED_HAS_NO_GRIDS, EXPANDED_HAS_ONE_CANVAS, SplitMetadata
from utils.errors import SettingError

NO_AUGMENTATIONS = np.empty((0, len(IDENTITY_ROW)), dtype=np.uint8)


class PuzzleIdentities(NamedTuple):
    """Which task and which augmentation each puzzle is.

    tasks: int32 [P], numbers from 1 on; 0 where a puzzle has no task, such as a Sudoku board.  They are the same in
        both splits of a data set.
    augmentations: uint8 [P, 11], dihedral transform and ten colours.
    num_tasks: of the whole data set.
    """

    tasks: np.ndarray
    augmentations: np.ndarray
    num_tasks: int


class Split:
    """The examples of one split, by number.

    group_indices: int [G + 1], the first puzzle of each group and the end.
    puzzle_indices: int [P + 1], the first example of each puzzle and the end.
    puzzle_identifiers: int32 [P].
    group_weights: float64 [G], visits of each group per epoch; None means one each.
    visit_sizes: int64 [G], how many of a puzzle's examples a visit takes, at most; None means all.

    Several groups may have the same puzzles: one has a task's own pairs, another one its generated pairs.
    """

    metadata: SplitMetadata
    group_indices: np.ndarray
    puzzle_indices: np.ndarray
    puzzle_identifiers: np.ndarray
    group_weights: np.ndarray | None = None
    visit_sizes: np.ndarray | None = None

    @property
    def num_examples(self) -> int:
        return int(self.puzzle_indices[-1])

    def read(
        self,
        examples: np.ndarray,
        visit_seeds: np.ndarray | None = None,
        canvas: Canvas | None = None,
        augmentations: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the inputs and the labels, uint8 [N, cells] each, of `examples` int64 [N].

        Args:
            visit_seeds: uint64 [N], equal for the examples of one visit of a puzzle.  All examples of a visit but one
                are shifted at random; the shifts depend on the seed alone.  None means no shifts.  Expanded data are
                stored with their shifts and ignore the seeds.
            canvas: the top-left part of the whole canvas to return.  It must hold the examples (`canvas_sizes`).
            augmentations: uint8 [N, 11], in place of the stored ones.  The canvas must hold the examples turned, too.

        Raises:
            SettingError: if the data set's format has the whole canvas alone, and `canvas` is another; or if it stores
                no grids, and `augmentations` are given.
            IndexError: if an example does not exist.
        """
        raise NotImplementedError

    def canvas_sizes(self, examples: np.ndarray) -> np.ndarray:
        """Returns the height and width of the canvas that each of `examples` int64 [N] needs: int16 [N, 2].

        Raises:
            SettingError: if the data set's format has the whole canvas alone.
            IndexError: if an example does not exist.
        """
        raise NotImplementedError

    def identities(self) -> PuzzleIdentities:
        """Returns the task and the augmentation of each puzzle."""
        raise NotImplementedError

    def check_takes_augmentations(self) -> None:
        """Raises SettingError if examples cannot be read under other augmentations than the stored ones."""

    def restricted_to(self, identifiers: np.ndarray) -> Split:
        """Returns the groups that contain a puzzle with one of `identifiers`."""
        wanted = np.isin(np.asarray(self.puzzle_identifiers), identifiers)
        return RestrictedSplit(self, np.flatnonzero(_in_wanted_group(self.group_indices, wanted)))

    def first_puzzles(self, count: int) -> Split:
        """Returns the first `count` puzzles of each group; the un-augmented one is the first."""
        return RestrictedSplit(self, np.flatnonzero(self.rounds() < count))

    def rounds(self) -> np.ndarray:
        """Returns the position of each puzzle in its group, int64 [P]: 0 for the un-augmented one."""
        starts = np.asarray(self.group_indices, dtype=np.int64)
        return np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))


def _in_wanted_group(group_indices: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns whether each puzzle's group contains a wanted puzzle: bool [P]."""
    starts = np.asarray(group_indices)
    totals = np.concatenate(([0], np.cumsum(wanted)))
    return np.repeat(totals[starts[1:]] > totals[starts[:-1]], np.diff(starts))


def weights_or_none(weights: np.ndarray) -> np.ndarray | None:
    """Returns the weights, or None where each group has the weight 1."""
    return None if (weights == 1).all() else weights


def join_visit_sizes(parts: Sequence[tuple[np.ndarray | None, int]]) -> np.ndarray | None:
    """Returns the visit sizes of several lists of groups, int64 [all groups]; None if none of them has any.

    Args:
        parts: of each list its visit sizes and its number of groups.
    """
    if all(sizes is None for sizes, _ in parts):
        return None
    unlimited = np.iinfo(np.int64).max
    return np.concatenate([np.full(groups, unlimited) if sizes is None else sizes for sizes, groups in parts])


@dataclass
class CompactSplit(Split):
    """Examples that are encoded when they are read.

    grids: uint8, the cells of all grids, flat.
    index: where the grids and the augmentation of each example are.
    shifted: whether `visit_seeds` have an effect.
    group_tasks: int32 [G], the number of each group's task, from 1 on.  num_tasks: of the whole data set.
    """

    metadata: SplitMetadata
    grids: np.ndarray
    index: ExampleIndex = field(repr=False)
    group_indices: np.ndarray = field(repr=False)
    identifiers_start: int = 1
    shifted: bool = True
    group_weights: np.ndarray | None = field(default=None, repr=False)
    visit_sizes: np.ndarray | None = field(default=None, repr=False)
    group_tasks: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int32), repr=False)
    num_tasks: int = 0

    @cached_property
    def puzzle_indices(self) -> np.ndarray:  # type: ignore[override]
        per_puzzle = np.repeat(self.index.group_examples, np.diff(self.group_indices))
        return np.concatenate(([0], np.cumsum(per_puzzle))).astype(np.int32)

    @cached_property
    def puzzle_identifiers(self) -> np.ndarray:  # type: ignore[override]
        return (self._augmentation_rows() + self.identifiers_start).astype(np.int32)

    def _augmentation_rows(self) -> np.ndarray:
        """Returns the row of `index.augmentations` of each puzzle, int64 [P]."""
        puzzles = np.arange(self.group_indices[-1])
        group = np.searchsorted(self.group_indices, puzzles, side="right") - 1
        rows: np.ndarray = self.index.first_row[group] + puzzles - self.group_indices[group]
        return rows

    def identities(self) -> PuzzleIdentities:
        tasks = np.repeat(self.group_tasks, np.diff(self.group_indices))
        return PuzzleIdentities(tasks, np.asarray(self.index.augmentations[self._augmentation_rows()]), self.num_tasks)

    def read(
        self,
        examples: np.ndarray,
        visit_seeds: np.ndarray | None = None,
        canvas: Canvas | None = None,
        augmentations: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodes the examples; `Split.read` lists arguments, shapes and errors."""
        examples = _check_bounds(examples, self.num_examples)
        whole = self.metadata.canvas
        if canvas is None:
            canvas = whole
        else:  # the kernel writes without bounds checks
            sizes = self.canvas_sizes(examples)
            if augmentations is not None:
                sizes = np.maximum(sizes, sizes[:, ::-1])  # they may turn it
            fits = not len(examples) or bool((sizes <= canvas).all())
            assert fits, f"an example does not fit a canvas of {canvas}"
        inputs = np.empty((len(examples), canvas.height, canvas.width), dtype=np.uint8)
        labels = np.empty_like(inputs)
        seeds = visit_seeds if self.shifted and visit_seeds is not None else np.empty(0, dtype=np.uint64)
        assert len(seeds) in (0, len(examples)), (len(seeds), len(examples))
        drawn = NO_AUGMENTATIONS if augmentations is None else augmentations
        assert len(drawn) in (0, len(examples)), (len(drawn), len(examples))
        encoding.encode_examples(self.grids, self.index, examples, seeds, drawn, whole.height, inputs, labels)
        return inputs.reshape(-1, canvas.cells), labels.reshape(-1, canvas.cells)

    def canvas_sizes(self, examples: np.ndarray) -> np.ndarray:
        """Returns the canvas that each example needs under its augmentation, as `Split.canvas_sizes`."""
        sizes = np.empty((len(examples), 2), dtype=np.int16)
        encoding.measure_examples(
            self.index, _check_bounds(examples, self.num_examples), self.metadata.canvas.height, sizes
        )
        return sizes


@dataclass
class ExpandedSplit(Split):
    """Examples that are stored as they are read.  A split may have several sets, one after the other.

    open_catalog: reads what each identifier of the data set stands for.
    """

    metadata: SplitMetadata
    inputs: list[np.ndarray]
    labels: list[np.ndarray]
    group_indices: np.ndarray
    puzzle_indices: np.ndarray
    puzzle_identifiers: np.ndarray
    group_weights: np.ndarray | None = None
    visit_sizes: np.ndarray | None = None
    open_catalog: Callable[[], PuzzleCatalog] | None = field(default=None, repr=False)

    def identities(self) -> PuzzleIdentities:
        """Reads the names of all identifiers: this takes seconds with a million puzzles."""
        assert self.open_catalog is not None, "this split does not know its data set"
        catalog = self.open_catalog()
        tasks = catalog.task_of[self.puzzle_identifiers] + np.int32(1)
        rows = np.hstack([catalog.dihedral[:, None], catalog.colours])[self.puzzle_identifiers]
        rows[tasks == 0] = IDENTITY_ROW
        return PuzzleIdentities(tasks, rows, len(catalog.task_ids))

    def check_takes_augmentations(self) -> None:
        raise SettingError(EXPANDED_HAS_NO_GRIDS)

    def read(
        self,
        examples: np.ndarray,
        visit_seeds: np.ndarray | None = None,
        canvas: Canvas | None = None,
        augmentations: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Copies the examples; `Split.read` lists arguments, shapes and errors."""
        if augmentations is not None:
            self.check_takes_augmentations()
        if canvas not in (None, self.metadata.canvas):
            raise SettingError(EXPANDED_HAS_ONE_CANVAS)
        examples = _check_bounds(examples, self.num_examples)
        inputs = np.empty((len(examples), self.metadata.seq_len), dtype=np.uint8)
        labels = np.empty_like(inputs)
        first = 0
        for part_inputs, part_labels in zip(self.inputs, self.labels, strict=True):
            _gather(part_inputs, examples, first, inputs)
            _gather(part_labels, examples, first, labels)
            first += len(part_inputs)
        return inputs, labels

    def canvas_sizes(self, examples: np.ndarray) -> np.ndarray:
        """Raises SettingError: this format has the whole canvas alone."""
        raise SettingError(EXPANDED_HAS_ONE_CANVAS)


def _check_bounds(examples: np.ndarray, num_examples: int) -> np.ndarray:
    """Returns the numbers of examples, if all exist: the kernels read without bounds checks."""
    examples = np.asarray(examples, dtype=np.int64)
    if len(examples) and not 0 <= examples.min() <= examples.max() < num_examples:
        raise IndexError(f"examples {examples.min()}..{examples.max()} are not all in 0..{num_examples - 1}")
    return examples


@numba.njit(nogil=True, cache=True)
def _gather(rows, examples, first, out):  # type: ignore[no-untyped-def]
    """Copies the examples that are in `rows`, the first of which is example `first`.  Other threads run while it waits
    for the disk."""
    for n in range(len(examples)):
        i = examples[n] - first
        if 0 <= i < len(rows):
            out[n] = rows[i]


class RestrictedSplit(Split):
    """Some puzzles of another split.

    puzzles: int64, in rising order.  Groups without any of them are left out.
    """

    def __init__(self, base: Split, puzzles: np.ndarray) -> None:
        self.base = base
        group_starts, puzzle_starts = np.asarray(base.group_indices), np.asarray(base.puzzle_indices)
        groups = np.searchsorted(group_starts, puzzles, side="right") - 1
        per_group = np.bincount(groups, minlength=len(group_starts) - 1)
        sizes = puzzle_starts[puzzles + 1] - puzzle_starts[puzzles]
        self.group_indices = np.concatenate(([0], np.cumsum(per_group[per_group > 0]))).astype(np.int32)
        self.puzzle_indices = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
        self.puzzle_identifiers = np.asarray(base.puzzle_identifiers)[puzzles]
        self.group_weights = None if base.group_weights is None else base.group_weights[per_group > 0]
        self.visit_sizes = None if base.visit_sizes is None else base.visit_sizes[per_group > 0]
        self.metadata = base.metadata.model_copy(
            update={
                "total_groups": int((per_group > 0).sum()),
                "total_puzzles": len(puzzles),
                "mean_puzzle_examples": float(sizes.mean()) if len(sizes) else 0.0,
            }
        )
        self._puzzles = puzzles
        self._shift = puzzle_starts[puzzles] - self.puzzle_indices[:-1]

    def _examples_of_base(self, examples: np.ndarray) -> np.ndarray:
        return examples + self._shift[np.searchsorted(self.puzzle_indices, examples, side="right") - 1]

    def read(
        self,
        examples: np.ndarray,
        visit_seeds: np.ndarray | None = None,
        canvas: Canvas | None = None,
        augmentations: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.base.read(self._examples_of_base(examples), visit_seeds, canvas, augmentations)

    def identities(self) -> PuzzleIdentities:
        every = self.base.identities()
        return PuzzleIdentities(every.tasks[self._puzzles], every.augmentations[self._puzzles], every.num_tasks)

    def check_takes_augmentations(self) -> None:
        self.base.check_takes_augmentations()

    def canvas_sizes(self, examples: np.ndarray) -> np.ndarray:
        return self.base.canvas_sizes(self._examples_of_base(examples))
