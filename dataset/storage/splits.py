"""The train or the test split of a data set: an interface, and its expanded and restricted forms.

The compact form is in `dataset.storage.compact`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numba
import numpy as np

from dataset.augmentation import IDENTITY_ROW
from dataset.canvas import Canvas
from dataset.storage.catalog import PuzzleCatalog
from dataset.storage.puzzle_layout import NO_STARTS, PuzzleLayout
from dataset.storage.schema import EXPANDED_HAS_NO_GRIDS, EXPANDED_HAS_ONE_CANVAS, SplitMetadata
from utils.errors import SettingError


class PuzzleIdentities(NamedTuple):
    """Which task and which augmentation some puzzles are.

    tasks: int32 [N], numbers from 1 on; 0 where a puzzle has no task, such as a Sudoku board.  They are the same in
        both splits of a data set.
    augmentations: uint8 [N, 11], dihedral transform and ten colours.
    """

    tasks: np.ndarray
    augmentations: np.ndarray


class PuzzleNames(NamedTuple):
    """What files call some puzzles.

    identifiers: int32 [N], of the catalog.
    drawn: uint8 [N, 11], the augmentations of puzzles that are not stored, whose identifiers are those of their tasks'
        un-augmented puzzles; zeros for a stored one.  None if all are stored.
    """

    identifiers: np.ndarray
    drawn: np.ndarray | None = None


class Split:
    """The examples of one split, by number.  What it has of puzzles is computed for those that are asked for.

    layout: which puzzles a group has, and which examples a puzzle has.
    group_weights: float64 [G], visits of each group per epoch; None means one each.
    num_tasks: of the whole data set.

    Several groups may have the same puzzles: one has a task's own pairs, another one its generated pairs.
    """

    metadata: SplitMetadata
    layout: PuzzleLayout
    group_weights: np.ndarray | None = None
    num_tasks: int
    takes_augmentations = True
    """Whether examples can be read under other augmentations than the stored ones."""

    @property
    def num_examples(self) -> int:
        return self.layout.num_examples

    @property
    def visit_sizes(self) -> np.ndarray | None:
        """int64 [G], how many of a puzzle's examples a visit takes, at most; None means all."""
        return self.layout.visit_sizes if len(self.layout.visit_sizes) else None

    @property
    def group_indices(self) -> np.ndarray:
        """int64 [G + 1], the first puzzle of each group and the end."""
        return self.layout.group_starts

    @cached_property
    def puzzle_indices(self) -> np.ndarray:
        """int64 [P + 1], the first example of each puzzle and the end.  It is as large as the split has puzzles."""
        return self.layout.starts(0, self.layout.num_puzzles)

    @cached_property
    def puzzle_identifiers(self) -> np.ndarray:
        """int32 [P], of all puzzles: as large as the split has puzzles."""
        return self.identifiers_of(np.arange(self.layout.num_puzzles))

    def identifiers_of(self, puzzles: np.ndarray) -> np.ndarray:
        """Returns the identifier of each of `puzzles` [N]: int32 [N]."""
        raise NotImplementedError

    def identifier_ranges(self) -> np.ndarray:
        """Returns all identifiers but the blank one as ranges: int64 [R, 2], first and end, in rising order."""
        identifiers = np.unique(self.puzzle_identifiers)
        identifiers = identifiers[identifiers != self.metadata.blank_identifier_id].astype(np.int64)
        breaks = np.flatnonzero(np.diff(identifiers) != 1)
        firsts, lasts = (
            identifiers[np.append(0, breaks + 1)[: len(identifiers)]],
            identifiers[np.append(breaks, -1)[: len(identifiers)]],
        )
        return np.stack((firsts, lasts + 1), axis=1)

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

    def pair_sizes(self) -> np.ndarray:
        """Returns the height and width of the canvas that each pair needs as it is stored: int16 [pairs, 2].

        Raises:
            SettingError: if the data set's format has the whole canvas alone.
        """
        raise NotImplementedError

    def pairs_of(self, puzzles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first pair (of `pair_sizes`) of each of `puzzles` [N], int64 [N], whose examples are that one and
        those after it; and whether the puzzle's augmentation turns height into width, bool [N]."""
        raise NotImplementedError

    def identities(self, puzzles: np.ndarray) -> PuzzleIdentities:
        """Returns the task and the augmentation of each of `puzzles` [N]."""
        raise NotImplementedError

    def names_of(self, puzzles: np.ndarray) -> PuzzleNames:
        """Returns what files call each of `puzzles` [N]."""
        return PuzzleNames(self.identifiers_of(puzzles))

    def check_takes_augmentations(self) -> None:
        """Raises SettingError if examples cannot be read under other augmentations than the stored ones."""
        if not self.takes_augmentations:
            raise SettingError(EXPANDED_HAS_NO_GRIDS)

    def restricted_to(self, identifiers: np.ndarray) -> Split:
        """Returns the groups that contain a puzzle with one of `identifiers`."""
        wanted = np.isin(self.puzzle_identifiers, identifiers)
        groups = np.unique(self.layout.groups_of(np.flatnonzero(wanted)))
        return RestrictedSplit(self, self.layout.puzzles_in(groups))

    def first_puzzles(self, count: int) -> Split:
        """Returns the first `count` puzzles of each group; the un-augmented one is the first."""
        return RestrictedSplit(self, self.layout.first_of_groups(count))

    def rounds(self) -> np.ndarray:
        """Returns the position of each puzzle in its group, int64 [P]: 0 for the un-augmented one."""
        starts = self.layout.group_starts
        return np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))


def weights_or_none(weights: np.ndarray) -> np.ndarray | None:
    """Returns the weights, or None where each group has the weight 1."""
    return None if (weights == 1).all() else weights


class ExpandedSplit(Split):
    """Examples that are stored as they are read.  A split may have several sets, one after the other.

    Args:
        group_indices, puzzle_indices, puzzle_identifiers: int [G + 1], [P + 1] and [P], as of `Split`.
        open_catalog: reads what each identifier of the data set stands for.
    """

    def __init__(
        self,
        metadata: SplitMetadata,
        inputs: list[np.ndarray],
        labels: list[np.ndarray],
        group_indices: np.ndarray,
        puzzle_indices: np.ndarray,
        puzzle_identifiers: np.ndarray,
        group_weights: np.ndarray | None = None,
        visit_sizes: np.ndarray | None = None,
        open_catalog: Callable[[], PuzzleCatalog] | None = None,
    ) -> None:
        self.metadata, self.inputs, self.labels = metadata, inputs, labels
        sizes = NO_STARTS if visit_sizes is None else np.asarray(visit_sizes, dtype=np.int64)
        self.layout = PuzzleLayout.from_starts(group_indices, puzzle_indices)._replace(visit_sizes=sizes)
        self.group_weights, self._open_catalog = group_weights, open_catalog
        self._identifiers = np.asarray(puzzle_identifiers, dtype=np.int32)

    takes_augmentations = False

    @cached_property
    def _catalog(self) -> PuzzleCatalog:
        """Reads the names of all identifiers: this takes seconds with a million puzzles."""
        assert self._open_catalog is not None, "this split does not know its data set"
        return self._open_catalog()

    @property
    def num_tasks(self) -> int:  # type: ignore[override]
        return len(self._catalog.task_ids)

    def identifiers_of(self, puzzles: np.ndarray) -> np.ndarray:
        return self._identifiers[puzzles]

    def identities(self, puzzles: np.ndarray) -> PuzzleIdentities:
        identifiers = self._identifiers[puzzles]
        tasks = self._catalog.tasks_of(identifiers) + np.int32(1)
        rows = self._catalog.augmentations_of(identifiers)
        rows[tasks == 0] = IDENTITY_ROW
        return PuzzleIdentities(tasks, rows)

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
        examples = check_bounds(examples, self.num_examples)
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

    def pair_sizes(self) -> np.ndarray:
        """Raises SettingError: this format has the whole canvas alone."""
        raise SettingError(EXPANDED_HAS_ONE_CANVAS)


def check_bounds(examples: np.ndarray, num_examples: int) -> np.ndarray:
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

    Args:
        puzzles: int64, in rising order.  Groups without any of them are left out.
    """

    def __init__(self, base: Split, puzzles: np.ndarray) -> None:
        self.base, self._puzzles = base, puzzles
        per_group = np.bincount(base.layout.groups_of(puzzles), minlength=base.layout.num_groups)
        self._first_of_base, sizes = base.layout.examples_of(puzzles)
        self._starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        groups = np.concatenate(([0], np.cumsum(per_group[per_group > 0])))
        visit_sizes = base.layout.visit_sizes
        self.layout = PuzzleLayout.from_starts(groups, self._starts)._replace(
            visit_sizes=visit_sizes[per_group > 0] if len(visit_sizes) else visit_sizes
        )
        self.group_weights = None if base.group_weights is None else base.group_weights[per_group > 0]
        self.metadata = base.metadata.model_copy(
            update={
                "total_groups": int((per_group > 0).sum()),
                "total_puzzles": len(puzzles),
                "mean_puzzle_examples": float(sizes.mean()) if len(sizes) else 0.0,
            }
        )

    @property
    def num_tasks(self) -> int:  # type: ignore[override]
        return self.base.num_tasks

    def _examples_of_base(self, examples: np.ndarray) -> np.ndarray:
        puzzles = np.searchsorted(self._starts, examples, side="right") - 1
        found: np.ndarray = examples + (self._first_of_base - self._starts[:-1])[puzzles]
        return found

    def read(
        self,
        examples: np.ndarray,
        visit_seeds: np.ndarray | None = None,
        canvas: Canvas | None = None,
        augmentations: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.base.read(self._examples_of_base(examples), visit_seeds, canvas, augmentations)

    def identifiers_of(self, puzzles: np.ndarray) -> np.ndarray:
        return self.base.identifiers_of(self._puzzles[puzzles])

    def identities(self, puzzles: np.ndarray) -> PuzzleIdentities:
        return self.base.identities(self._puzzles[puzzles])

    def names_of(self, puzzles: np.ndarray) -> PuzzleNames:
        return self.base.names_of(self._puzzles[puzzles])

    @property
    def takes_augmentations(self) -> bool:  # type: ignore[override]
        return self.base.takes_augmentations

    def canvas_sizes(self, examples: np.ndarray) -> np.ndarray:
        return self.base.canvas_sizes(self._examples_of_base(examples))

    def pair_sizes(self) -> np.ndarray:
        return self.base.pair_sizes()

    def pairs_of(self, puzzles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.base.pairs_of(self._puzzles[puzzles])
