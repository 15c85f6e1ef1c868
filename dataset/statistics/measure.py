"""Measures what a data set contains: sizes, colours, pairs, augmentations found, duplicates.

    python -m dataset.statistics DATA_SET                  as text
    python -m dataset.statistics DATA_SET --out FILE.png   and as a picture (needs the extra `pictures`)

It reads both formats, published data sets too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset.augmentation import NUM_COLOURS
from dataset.build.duplicate_tasks import find_duplicates, inputs_key
from dataset.decoding import crop
from dataset.encoding import COLOUR_0, MAX_GRID, PAD
from dataset.storage import PuzzleCatalog, Split, open_catalog, open_manifest, open_split, open_tasks
from dataset.tasks import Pair, Task
from utils.errors import DataError

UNRECORDED = "all tasks"


@dataclass
class SubsetStatistics:
    """The tasks of one subset.

    weight: visits of each task per epoch.
    puzzles, pairs: of each task, its puzzles and the pairs that are trained on.
    """

    name: str
    tasks: int = 0
    weight: float = 1.0
    puzzles: list[int] = field(default_factory=list)
    pairs: list[int] = field(default_factory=list)

    @property
    def visits(self) -> float:
        """Visits of its tasks per epoch."""
        return self.weight * self.tasks

    @property
    def examples(self) -> float:
        """Examples that these visits take."""
        return self.weight * sum(self.pairs)


@dataclass
class Statistics:
    """What a data set contains.  Sizes, colours and tokens are those of the un-augmented grids.

    side: the side of the canvas, in cells.
    test_tasks, test_inputs, unknown_outputs: numbers of tasks, test inputs and unknown outputs of the test split.
    sizes: int64 [2, 31, 31], number of inputs and of outputs with each number of rows and columns.
    colours: int64 [10], cells of each colour.
    colours_per_task: int64 [11], number of tasks with each number of colours.
    same_size: fraction of pairs whose output is as large as the input.
    used_tokens: int64 [pairs], tokens of the canvas that are not PAD in the input or the label.
    num_aug: augmentations looked for per task; None if nothing records it.
    repeated: ids of training tasks with the same inputs under some augmentation, in groups.
    contaminated: (test task, training task) for each test task that is also trained on under another id.
    generated: pairs that are trained on beside a task's own, of each task that has some; they count nowhere else.
    """

    name: str
    side: int
    subsets: list[SubsetStatistics]
    test_tasks: int
    test_inputs: int
    unknown_outputs: int
    sizes: np.ndarray
    colours: np.ndarray
    colours_per_task: np.ndarray
    same_size: float
    used_tokens: np.ndarray
    num_aug: int | None
    repeated: list[list[str]]
    contaminated: list[tuple[str, str]]
    generated: list[int]

    @property
    def puzzles(self) -> np.ndarray:
        """Puzzles of each task, the un-augmented one included: int64 [tasks]."""
        return np.concatenate([np.array(subset.puzzles) for subset in self.subsets])

    @property
    def pairs(self) -> np.ndarray:
        """Pairs of each task that are trained on: int64 [tasks]."""
        return np.concatenate([np.array(subset.pairs) for subset in self.subsets])

    @property
    def num_tasks(self) -> int:
        return sum(subset.tasks for subset in self.subsets)

    @property
    def num_repeating(self) -> int:
        """Training tasks that repeat the inputs of an earlier one."""
        return sum(map(len, self.repeated)) - len(self.repeated)

    @property
    def num_short(self) -> int | None:
        """Tasks with fewer puzzles than `num_aug` asks for; None if nothing records it."""
        return None if self.num_aug is None else int((self.puzzles < self.num_aug + 1).sum())


class _Group(NamedTuple):
    """The un-augmented puzzle of a group, as it was read back; used_tokens int64 [pairs]."""

    task_id: str
    pairs: tuple[Pair, ...]
    used_tokens: np.ndarray
    puzzles: int
    weight: float


def measure_data_set(directory: str | Path) -> Statistics:
    """Reads the un-augmented puzzles of a data set and measures them.

    Raises:
        DataError: if it is not a data set, or has no ARC tasks.
    """
    directory = Path(directory)
    train, test, catalog = open_split(directory, "train"), open_split(directory, "test"), open_catalog(directory)
    if not catalog.task_ids:
        raise DataError(f"{directory} has no ARC tasks: statistics need an ARC data set")
    entries, manifest = open_tasks(directory), open_manifest(directory)
    held_out = {group.task_id: group for group in _read_groups(test, catalog)}
    every = list(_read_groups(train, catalog))
    own = ~_is_generated(train)
    trained = [group for group, is_own in zip(every, own, strict=True) if is_own]
    subset_of = {entry.id: entry.subset for entry in entries or []}
    tasks = [
        Task(
            group.task_id,
            subset_of.get(group.task_id, UNRECORDED),
            group.pairs,
            held_out[group.task_id].pairs if group.task_id in held_out else (),
        )
        for group in trained
    ]
    test_outputs = [output for group in held_out.values() for _, output in group.pairs]
    colours_of = [_count_colours(task) for task in tasks]
    keys = {task.id: inputs_key(task) for task in tasks}
    return Statistics(
        name=str(directory),
        side=math.isqrt(train.metadata.seq_len),
        subsets=_collect_subsets(tasks, trained, recorded=entries is not None),
        test_tasks=len(held_out),
        test_inputs=len(test_outputs),
        unknown_outputs=sum(output is None for output in test_outputs),
        sizes=_count_sizes(tasks),
        colours=np.sum(colours_of, axis=0),
        colours_per_task=np.bincount([int((of > 0).sum()) for of in colours_of], minlength=NUM_COLOURS + 1),
        same_size=_same_size(tasks),
        used_tokens=_collect_used_tokens(trained, held_out),
        num_aug=None if manifest is None else _same_num_aug(manifest.settings),
        repeated=_find_repeated([task for task in tasks if task.id not in held_out], keys),
        contaminated=find_duplicates(
            [task for task in tasks if task.id not in held_out], [task for task in tasks if task.id in held_out], keys
        ),
        generated=[len(group.pairs) for group, is_own in zip(every, own, strict=True) if not is_own],
    )


def decode_pairs(inputs: np.ndarray, labels: np.ndarray) -> tuple[Pair, ...]:
    """Returns the grids on canvases of tokens uint8 [N, seq_len], at any offset; None for an output that is not known.

    Raises:
        DataError: if an input has no coloured cell.
    """
    pairs: list[Pair] = []
    for input_row, label_row in zip(inputs, labels, strict=True):
        grid = _decode(input_row)
        if grid is None:
            raise DataError("an example of the data set has no coloured cell: build the data set again")
        pairs.append((grid, _decode(label_row)))
    return tuple(pairs)


def _decode(row: np.ndarray) -> np.ndarray | None:
    """Moves the grid to the top-left corner and crops it."""
    side = math.isqrt(len(row))
    canvas = row.reshape(side, side)
    coloured = canvas >= COLOUR_0
    if not coloured.any():
        return None
    corner = int(coloured.any(1).argmax()), int(coloured.any(0).argmax())
    return crop(np.roll(canvas, (-corner[0], -corner[1]), axis=(0, 1)).reshape(-1), side)


def _read_groups(split: Split, catalog: PuzzleCatalog) -> Iterator[_Group]:
    layout = split.layout
    puzzles = np.diff(layout.group_starts)
    firsts, counts = layout.examples_of(layout.group_starts[:-1])
    identifiers = split.identifiers_of(layout.group_starts[:-1])
    for group, (first, count) in enumerate(zip(firsts.tolist(), counts.tolist(), strict=True)):
        task_id, _ = catalog.lookup(int(identifiers[group]))
        inputs, labels = split.read(np.arange(first, first + count))
        yield _Group(
            task_id,
            decode_pairs(inputs, labels),
            used_tokens=((inputs != PAD) | (labels != PAD)).sum(1),
            puzzles=int(puzzles[group]),
            weight=1.0 if split.group_weights is None else float(split.group_weights[group]),
        )


def _is_generated(split: Split) -> np.ndarray:
    """Returns for each group whether an earlier one has its puzzles: bool [G]."""
    firsts = split.identifiers_of(split.layout.group_starts[:-1])
    generated = np.ones(len(firsts), dtype=bool)
    generated[np.unique(firsts, return_index=True)[1]] = False
    return generated


def _same_num_aug(settings: Mapping[str, Any]) -> int | None:
    """Returns how many augmentations each task was to have; None if sources differ in it."""
    has_own = any("num_aug" in source for source in settings.get("sources", ()))
    return None if has_own else settings.get("num_aug")


def _collect_subsets(tasks: list[Task], trained: list[_Group], recorded: bool) -> list[SubsetStatistics]:
    """Sums the tasks by subset, the largest first; by weight where no subsets are recorded."""
    subsets: dict[str, SubsetStatistics] = {}
    for task, group in zip(tasks, trained, strict=True):
        # All tasks of a subset have one weight, since a subset has one source.
        name = task.subset if recorded or group.weight == 1 else f"{task.subset}, weight {group.weight:g}"
        subset = subsets.setdefault(name, SubsetStatistics(name, weight=group.weight))
        subset.tasks += 1
        subset.puzzles.append(group.puzzles)
        subset.pairs.append(len(group.pairs))
    return sorted(subsets.values(), key=lambda subset: (-subset.tasks, subset.name))


def _collect_used_tokens(trained: list[_Group], held_out: Mapping[str, _Group]) -> np.ndarray:
    parts = []
    for group in trained:
        parts.append(group.used_tokens)
        if group.task_id in held_out:
            parts.append(held_out[group.task_id].used_tokens)
    return np.concatenate(parts)


def _grids(task: Task) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each grid of a task, with 0 for an input and 1 for an output."""
    for pair in task.pairs:
        for side, grid in enumerate(pair):
            if grid is not None:
                yield side, grid


def _count_colours(task: Task) -> np.ndarray:
    """Returns the cells of each colour: int64 [10]."""
    return np.bincount(np.concatenate([grid.reshape(-1) for _, grid in _grids(task)]), minlength=NUM_COLOURS)


def _count_sizes(tasks: list[Task]) -> np.ndarray:
    sizes = np.zeros((2, MAX_GRID + 1, MAX_GRID + 1), dtype=np.int64)
    for task in tasks:
        for side, grid in _grids(task):
            sizes[side][grid.shape] += 1
    return sizes


def _same_size(tasks: list[Task]) -> float:
    known = [(a, b) for task in tasks for a, b in task.pairs if b is not None]
    return sum(a.shape == b.shape for a, b in known) / max(1, len(known))


def _find_repeated(tasks: list[Task], keys: Mapping[str, str]) -> list[list[str]]:
    """Returns the ids of tasks with the same inputs, where there are several, sorted."""
    groups: dict[str, list[str]] = {}
    for task in tasks:
        groups.setdefault(keys[task.id], []).append(task.id)
    return sorted(ids for ids in groups.values() if len(ids) > 1)
