"""The compact form of ARC tasks: from tasks to arrays, and from arrays to splits, on the disk or in memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dataset.encoding import ExampleIndex
from dataset.storage.catalog import PuzzleCatalog
from dataset.storage.content import AugmentedTasks
from dataset.storage.schema import GeneratedEntry, SplitMetadata, TaskEntry, TaskList
from dataset.storage.splits import CompactSplit, Split, weights_or_none
from dataset.tasks import Task
from utils.errors import DataError


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


def make_arrays(content: AugmentedTasks) -> CompactArrays:
    """Lays the grids of all tasks one after the other, and notes where each is."""
    cells: list[np.ndarray] = []
    pairs: list[list[int]] = []
    offset = 0
    for pairs_of_task in [task.pairs for task in content.tasks] + [more.pairs for more in content.generated]:
        for pair in pairs_of_task:
            row: list[int] = []
            for grid in pair:
                height, width = (0, 0) if grid is None else grid.shape
                row += (offset, height, width)
                if grid is not None:
                    cells.append(grid.reshape(-1))
                    offset += grid.size
            pairs.append(row)
    return CompactArrays(
        grids=np.concatenate(cells),
        pairs=np.array(pairs, dtype=np.int32),
        augmentations=np.concatenate(content.augmentations),
    )


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
    visit_sizes = None
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
    group_indices = _starts(puzzles).astype(np.int32)
    index = ExampleIndex(
        pairs=arrays.pairs,
        augmentations=arrays.augmentations,
        first_example=_starts(group_examples * puzzles)[:-1],
        group_examples=group_examples,
        first_pair=first_pair,
        first_row=first_row,
    )
    return CompactSplit(
        metadata,
        grids=arrays.grids,
        index=index,
        group_indices=group_indices,
        identifiers_start=listed.puzzle_identifiers_start,
        shifted=split == "train",
        group_weights=weights_or_none(weights) if split == "train" else None,
        visit_sizes=visit_sizes,
        group_tasks=np.array(chosen, dtype=np.int32) + np.int32(1),
        num_tasks=len(listed.tasks),
    )


def make_catalog(listed: TaskList, augmentations: np.ndarray) -> PuzzleCatalog:
    """Makes the catalog of the puzzles; `augmentations` uint8 [puzzles, 11]."""
    start, puzzles = listed.puzzle_identifiers_start, listed.numbers()[:, 2]
    rows = np.concatenate([np.zeros((start, augmentations.shape[1]), dtype=np.uint8), augmentations])
    task_of = np.concatenate([np.full(start, -1), np.repeat(np.arange(len(puzzles)), puzzles)]).astype(np.int32)
    return PuzzleCatalog([task.id for task in listed.tasks], task_of, rows[:, 0], rows[:, 1:])


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
    arrays, listed = make_arrays(content), make_task_list(content)
    for array in arrays:
        array.setflags(write=False)  # as those on the disk: kernels that are compiled for them serve here too
    train, test = (make_split(arrays, listed, content.metadata(split), split) for split in ("train", "test"))
    return train, test, make_catalog(listed, arrays.augmentations)


def _starts(counts: np.ndarray) -> np.ndarray:
    """Returns where each part starts, and the end: int64 [parts + 1]."""
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
