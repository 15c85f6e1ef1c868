"""The compact form of ARC tasks: from tasks to arrays, and from arrays to splits, on the disk or in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dataset import encoding
from dataset.augmentation import IDENTITY_ROW
from dataset.canvas import Canvas
from dataset.encoding import ExampleIndex
from dataset.storage.catalog import PuzzleCatalog
from dataset.storage.content import AugmentedTasks
from dataset.storage.puzzle_layout import NO_STARTS, PuzzleLayout
from dataset.storage.schema import GeneratedEntry, SplitMetadata, TaskEntry, TaskList
from dataset.storage.splits import PuzzleIdentities, RestrictedSplit, Split, check_bounds, weights_or_none
from dataset.tasks import Pair, Task
from utils.errors import DataError

NO_AUGMENTATIONS = np.empty((0, len(IDENTITY_ROW)), dtype=np.uint8)


class CompactArrays(NamedTuple):
    """The arrays that all splits of a compact data set share.

    grids: uint8, the cells of all grids, one after the other.
    pairs: int32 [pairs, 6]: offset of the input in `grids`, its height and width, then the same for the output
        (height 0: not known).
    augmentations: uint8 [puzzles, 11], dihedral transform and ten colours.
    """

    grids: np.ndarray
    pairs: np.ndarray
    augmentations: np.ndarray


@dataclass
class CompactSplit(Split):
    """Examples that are encoded when they are read.

    grids: uint8, the cells of all grids, flat.
    index: where the grids and the augmentation of each example are.
    shifted: whether `visit_seeds` have an effect.
    group_tasks: int32 [G], the number of each group's task, from 1 on.
    """

    metadata: SplitMetadata
    grids: np.ndarray
    index: ExampleIndex = field(repr=False)
    layout: PuzzleLayout = field(repr=False)
    identifiers_start: int = 1
    shifted: bool = True
    group_weights: np.ndarray | None = field(default=None, repr=False)
    group_tasks: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int32), repr=False)
    num_tasks: int = 0

    def _rows_of(self, puzzles: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Returns the row of `index.augmentations` of each puzzle, int64 [N]."""
        rows: np.ndarray = self.index.first_row[groups] + (puzzles - self.layout.group_starts[groups])
        return rows

    def identifiers_of(self, puzzles: np.ndarray) -> np.ndarray:
        rows = self._rows_of(puzzles, self.layout.groups_of(puzzles))
        return (rows + self.identifiers_start).astype(np.int32)

    def _ranges_of_groups(self) -> np.ndarray:
        first = self.index.first_row + self.identifiers_start
        return np.stack((first, first + np.diff(self.layout.group_starts)), axis=1)

    def identifier_ranges(self) -> np.ndarray:
        return np.unique(self._ranges_of_groups(), axis=0)  # groups of generated pairs repeat those of their tasks

    def restricted_to(self, identifiers: np.ndarray) -> Split:
        ranges, wanted = self._ranges_of_groups(), np.unique(identifiers)
        holds = np.searchsorted(wanted, ranges[:, 1]) > np.searchsorted(wanted, ranges[:, 0])
        return RestrictedSplit(self, self.layout.puzzles_in(np.flatnonzero(holds)))

    def identities(self, puzzles: np.ndarray) -> PuzzleIdentities:
        groups = self.layout.groups_of(puzzles)
        rows = np.asarray(self.index.augmentations[self._rows_of(puzzles, groups)])
        return PuzzleIdentities(self.group_tasks[groups], rows)

    def pair_sizes(self) -> np.ndarray:
        """Returns the canvas that each pair needs, as `Split.pair_sizes`."""
        pairs, side = self.index.pairs, self.metadata.canvas.height
        largest = np.maximum(pairs[:, [1, 2]], pairs[:, [4, 5]])
        return np.minimum(side, largest + 1).astype(np.int16)

    def pairs_of(self, puzzles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns where the pairs of puzzles are, as `Split.pairs_of`."""
        first, is_turned = np.empty(len(puzzles), dtype=np.int64), np.empty(len(puzzles), dtype=np.bool_)
        encoding.find_pairs(self.index, self.layout.group_starts, puzzles, first, is_turned)
        return first, is_turned

    def read(
        self,
        examples: np.ndarray,
        visit_seeds: np.ndarray | None = None,
        canvas: Canvas | None = None,
        augmentations: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodes the examples; `Split.read` lists arguments, shapes and errors."""
        examples = check_bounds(examples, self.num_examples)
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
            self.index, check_bounds(examples, self.num_examples), self.metadata.canvas.height, sizes
        )
        return sizes


def join_grids(all_pairs: Iterable[Sequence[Pair]]) -> tuple[np.ndarray, np.ndarray]:
    """Lays the grids of all pairs, task by task, one after the other, and notes where each is: `grids` and `pairs` of
    `CompactArrays`."""
    cells: list[np.ndarray] = []
    pairs: list[tuple[int, ...]] = []
    offset = 0
    for pairs_of_task in all_pairs:
        for pair in pairs_of_task:
            row: list[int] = []
            for grid in pair:
                height, width = (0, 0) if grid is None else grid.shape
                row += (offset, height, width)
                if grid is not None:
                    cells.append(grid.reshape(-1))
                    offset += grid.size
            pairs.append(tuple(row))
    return np.concatenate(cells), np.array(pairs, dtype=np.int32)


def make_task_list(content: AugmentedTasks) -> TaskList:
    """Describes the tasks in the order of their arrays.  Weights are left out where each is 1."""
    weighted = content.weights is not None and set(content.weights) != {1.0}
    entries = [
        TaskEntry(
            id=task.id,
            subset=task.subset,
            test_split=task.id in content.test_ids,
            demonstrations=len(task.train),
            pairs=len(task.pairs),
            puzzles=len(rows),
        )
        for task, rows in zip(content.tasks, content.augmentations, strict=True)
    ]
    if weighted:
        for entry, weight in zip(entries, content.weights or [], strict=True):
            entry.weight = weight
    start = content.identifiers_start
    if not content.generated:
        return TaskList(puzzle_identifiers_start=start, tasks=entries)
    number_of = {task.id: i for i, task in enumerate(content.tasks)}
    generated = [
        GeneratedEntry(task=number_of[more.task_id], subset=more.subset, pairs=len(more.pairs), weight=more.weight)
        for more in content.generated
    ]
    return TaskList(puzzle_identifiers_start=start, tasks=entries, generated=generated)


def make_split(arrays: CompactArrays, listed: TaskList, metadata: SplitMetadata, split: str) -> CompactSplit:
    """Makes a split of the arrays.  They are not validated here: `dataset.storage.validation` does that for files."""
    numbers = listed.numbers()
    chosen = [i for i, task in enumerate(listed.tasks) if split == "train" or task.test_split]
    demonstrations, all_pairs, puzzles = (numbers[chosen, i] for i in range(3))
    first_pair = _starts(numbers[:, 1])[:-1][chosen]
    if split == "test":
        group_examples, first_pair = all_pairs - demonstrations, first_pair + demonstrations
    else:
        is_test = np.array([listed.tasks[i].test_split for i in chosen], dtype=bool)
        group_examples = np.where(is_test, demonstrations, all_pairs)
    first_row = _starts(numbers[:, 2])[:-1][chosen]
    weights = np.array([listed.tasks[i].weight for i in chosen])
    visit_sizes = NO_STARTS
    if split == "train" and (more := listed.generated):  # more groups of puzzles that are there
        of = np.array([entry.task for entry in more])
        pairs = np.array([entry.pairs for entry in more])
        # A visit of generated pairs takes as many as one of the task's own, so that weights compare like with like.
        visit_sizes = np.concatenate((group_examples, np.minimum(pairs, group_examples[of])))
        first_pair = np.concatenate((first_pair, numbers[:, 1].sum() + _starts(pairs)[:-1]))
        group_examples, puzzles, first_row = (
            np.concatenate((own, added))
            for own, added in ((group_examples, pairs), (puzzles, puzzles[of]), (first_row, first_row[of]))
        )
        weights = np.concatenate((weights, [entry.weight for entry in more]))
        chosen += of.tolist()
    layout = PuzzleLayout.from_counts(puzzles, group_examples)._replace(visit_sizes=visit_sizes)
    index = ExampleIndex(
        pairs=arrays.pairs,
        augmentations=arrays.augmentations,
        first_example=layout.first_examples[:-1],
        group_examples=group_examples,
        first_pair=first_pair,
        first_row=first_row,
    )
    return CompactSplit(
        metadata,
        grids=arrays.grids,
        index=index,
        layout=layout,
        identifiers_start=listed.puzzle_identifiers_start,
        shifted=split == "train",
        group_weights=weights_or_none(weights) if split == "train" else None,
        group_tasks=np.array(chosen, dtype=np.int32) + np.int32(1),
        num_tasks=len(listed.tasks),
    )


def make_catalog(listed: TaskList, augmentations: np.ndarray) -> PuzzleCatalog:
    """Makes the catalog of the puzzles; `augmentations` uint8 [puzzles, 11]."""
    start = listed.puzzle_identifiers_start
    starts = np.concatenate(([0], start + _starts(listed.numbers()[:, 2])))
    tasks = np.arange(-1, len(listed.tasks), dtype=np.int32)
    return PuzzleCatalog([task.id for task in listed.tasks], starts, tasks, augmentations, start)


def splits_in_memory(
    tasks: list[Task], test_ids: set[str], augmentations: list[np.ndarray], side: int = 30
) -> tuple[Split, Split, PuzzleCatalog]:
    """Makes the splits and the catalog of a data set without writing it; they equal those read from the disk.

    Args:
        tasks: in the order of their identifiers, which start with 1.
        test_ids: ids of the tasks whose test pairs are the test split.
        augmentations: for each task uint8 [puzzles, 11], the identity first (`dataset.build.distinct_augmentations`).
        side: the side of the square canvas, in cells.

    Returns:
        The train split, the test split, the catalog.

    Raises:
        DataError: if a grid is larger than the canvas.
    """
    content = AugmentedTasks(tasks, test_ids, augmentations, side)
    for task in tasks:
        if task.max_side > side:
            raise DataError(f"task {task.id!r} has a grid of {task.max_side} cells in a row: use side={task.max_side}")
    arrays = CompactArrays(*join_grids(content.all_pairs()), np.concatenate(augmentations))
    listed = make_task_list(content)
    for array in arrays:
        array.setflags(write=False)  # as those on the disk: kernels that are compiled for them serve here too
    train, test = (make_split(arrays, listed, content.metadata(split), split) for split in ("train", "test"))
    return train, test, make_catalog(listed, arrays.augmentations)


def _starts(counts: np.ndarray) -> np.ndarray:
    """Returns where each part starts, and the end: int64 [parts + 1]."""
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
