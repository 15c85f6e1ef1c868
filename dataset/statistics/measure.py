"""What a data set holds: sizes, colours, pairs, augmentations found, overlaps.

    python -m dataset.statistics DATA_SET                  as text
    python -m dataset.statistics DATA_SET --out FILE.png   and as a picture (needs the extra `pictures`)

Both formats are read, published data sets too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset.augmentation import NUM_COLOURS
from dataset.build import duplicate_tasks
from dataset.encoding import COLOUR_0, PAD
from dataset.storage import Split, open_catalog, open_manifest, open_split, open_tasks
from dataset.tasks import Pair, Task

UNRECORDED = "all tasks"


@dataclass
class Source:
    """One subset.  puzzles, pairs: of each task, pairs that are trained on; weight: visits of each task per epoch."""

    name: str
    tasks: int = 0
    weight: float = 1.0
    puzzles: list[int] = field(default_factory=list)
    pairs: list[int] = field(default_factory=list)

    @property
    def visits(self) -> float:
        """Visits of its tasks in an epoch."""
        return self.weight * self.tasks

    @property
    def examples(self) -> float:
        """Examples that its visits of an epoch take."""
        return self.weight * sum(self.pairs)


@dataclass
class Statistics:
    """What a data set holds.  Sizes, colours and tokens are those of the un-augmented grids.

    side: of the canvas.  test_tasks, test_inputs, unknown: of the test split; unknown outputs.
    sizes: int64 [2, 31, 31], how many inputs and outputs have so many rows and columns.
    colours: int64 [10], cells of each colour.  colours_per_task: int64 [11], tasks with so many colours.
    same_size: share of pairs whose output has the size of the input.
    used: of each pair, tokens of the canvas that are not PAD in the input or the label.
    asked: augmentations looked for per task, None where nothing records it.
    repeated: groups of training tasks that are the same under some name and augmentation.
    trained_on: test tasks that are trained on whole, with their namesakes.
    """

    name: str
    side: int
    sources: list[Source]
    test_tasks: int
    test_inputs: int
    unknown: int
    sizes: np.ndarray
    colours: np.ndarray
    colours_per_task: np.ndarray
    same_size: float
    used: np.ndarray
    asked: int | None
    repeated: list[list[str]]
    trained_on: list[tuple[str, str]]

    @property
    def puzzles(self) -> np.ndarray:
        """Puzzles of each task, the un-augmented one included: int64 [tasks]."""
        return np.concatenate([np.array(source.puzzles) for source in self.sources])

    @property
    def pairs(self) -> np.ndarray:
        """Pairs of each task that are trained on: int64 [tasks]."""
        return np.concatenate([np.array(source.pairs) for source in self.sources])


def gather(directory: str | Path) -> Statistics:
    """Reads a data set's un-augmented puzzles and counts.

    Raises:
        ValueError: if it is no data set, or one without ARC tasks.
    """
    directory = Path(directory)
    train, test, catalog = open_split(directory, "train"), open_split(directory, "test"), open_catalog(directory)
    if not catalog.task_ids:
        raise ValueError(f"{directory} holds no ARC tasks: statistics are of ARC data sets")
    entries = open_tasks(directory)
    subset_of = {entry.id: entry.subset for entry in entries} if entries else {}
    manifest = open_manifest(directory)

    def by_task(split: Split) -> Iterator[tuple[str, int, list[Pair], np.ndarray]]:
        for group, first in enumerate(split.group_indices[:-1]):
            name, _ = catalog.lookup(int(split.puzzle_identifiers[first]))
            examples = np.arange(split.puzzle_indices[first], split.puzzle_indices[first + 1])
            inputs, labels = split.read(examples)
            yield name, group, decoded(inputs, labels), ((inputs != PAD) | (labels != PAD)).sum(1)

    held_out = {name: (pairs, used) for name, _, pairs, used in by_task(test)}
    tasks: list[Task] = []
    sources: dict[str, Source] = {}
    used_by_pair: list[np.ndarray] = []
    for name, group, pairs, used in by_task(train):
        asked, more = held_out.get(name, ([], np.empty(0, dtype=np.int64)))
        tasks.append(Task(name, subset_of.get(name, UNRECORDED), tuple(pairs), tuple(asked)))
        weight = 1.0 if train.group_weights is None else float(train.group_weights[group])
        # A subset is of one source and so of one weight; where no subsets are recorded, weights tell them apart.
        label = tasks[-1].subset + ("" if entries or weight == 1 else f", weight {weight:g}")
        source = sources.setdefault(label, Source(label, weight=weight))
        source.tasks += 1
        source.puzzles.append(int(train.group_indices[group + 1] - train.group_indices[group]))
        source.pairs.append(len(pairs))
        used_by_pair += [used, more]
    trained = [task for task in tasks if task.id not in held_out]
    tested = [task for task in tasks if task.id in held_out]
    keys = {task.id: duplicate_tasks.inputs_key(task) for task in tasks}
    cells = [np.concatenate([g.reshape(-1) for pair in t.pairs for g in pair if g is not None]) for t in tasks]
    known = [pair for task in tasks for pair in task.pairs if pair[1] is not None]
    return Statistics(
        name=str(directory),
        side=math.isqrt(train.metadata.seq_len),
        sources=sorted(sources.values(), key=lambda source: (-source.tasks, source.name)),
        test_tasks=len(held_out),
        test_inputs=sum(len(pairs) for pairs, _ in held_out.values()),
        unknown=sum(output is None for pairs, _ in held_out.values() for _, output in pairs),
        sizes=_sizes(tasks),
        colours=np.bincount(np.concatenate(cells), minlength=NUM_COLOURS),
        colours_per_task=np.bincount([len(np.unique(of)) for of in cells], minlength=NUM_COLOURS + 1),
        same_size=sum(a.shape == b.shape for a, b in known if b is not None) / max(1, len(known)),
        used=np.concatenate(used_by_pair),
        asked=manifest.settings.get("num_aug") if manifest is not None else None,
        repeated=_repeated(trained, keys),
        trained_on=duplicate_tasks.duplicates(trained, tested, keys),
    )


def decoded(inputs: np.ndarray, labels: np.ndarray) -> list[Pair]:
    """The grids on canvases of tokens uint8 [N, seq_len], wherever they lie; None for an output that is not known."""
    side = math.isqrt(inputs.shape[1])

    def grid(row: np.ndarray) -> np.ndarray | None:
        canvas = row.reshape(side, side)
        coloured = canvas >= COLOUR_0
        rows, columns = np.flatnonzero(coloured.any(1)), np.flatnonzero(coloured.any(0))
        if not len(rows):
            return None
        return (canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] - COLOUR_0).astype(np.uint8)

    found = []
    for input_row, label_row in zip(inputs, labels, strict=True):
        asked = grid(input_row)
        if asked is None:
            raise ValueError("an example of the data set has no coloured cell: build the data set anew")
        found.append((asked, grid(label_row)))
    return found


def _sizes(tasks: list[Task]) -> np.ndarray:
    sizes = np.zeros((2, 31, 31), dtype=np.int64)
    for task in tasks:
        for pair in task.pairs:
            for side, grid in enumerate(pair):
                if grid is not None:
                    sizes[side][grid.shape] += 1
    return sizes


def _repeated(tasks: list[Task], keys: Mapping[str, str]) -> list[list[str]]:
    """The ids of tasks with the same inputs, where there are several, by name."""
    groups: dict[str, list[str]] = {}
    for task in tasks:
        groups.setdefault(keys[task.id], []).append(task.id)
    return sorted(ids for ids in groups.values() if len(ids) > 1)
