"""Recognises the layout of a JSON value and takes it apart into tasks, before any grid is parsed.

    a task              {"train": [pair, ..], "test": [pair, ..]}
    examples            {"examples": [pair, ..]}
    pairs               [pair, ..]
    named tasks         [{"name": ID, "data": task}, ..]; or tasks with their own "id", "task_id", "uid" or "name"
    tasks by id         {ID: task, ..}
    tasks by subset     {"train": {ID: task, ..}, "eval": {ID: task, ..}}

A pair is `{"input": grid, "output": grid}` or `[grid, grid]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LAYOUTS = (
    'a task {"train", "test"}, {"examples"}, a list of pairs, [{"name", "data"}], {ID: task}, '
    '{"train": {ID: task}, "eval": {ID: task}} or one of these per line'
)
"""The known layouts, as errors name them."""

SUBSET_NAMES = {"train": "training", "eval": "evaluation", "test": "test"}
"""What the subsets of a file with tasks by subset are called here."""

_ID_KEYS = ("id", "task_id", "uid", "name")


@dataclass(frozen=True)
class RawTask:
    """A task whose grids are not parsed yet.

    id: None if the file's name is the id.
    train, test: the pairs as they are in the file, or the text of an object that is one.
    where: what to add to the file's name in errors.
    subset: None if the file does not say.
    """

    id: str | None
    train: list[Any]
    test: list[Any]
    where: str = ""
    subset: str | None = None


@dataclass(frozen=True)
class Recognised:
    """The tasks of a value and the name of its layout, in the plural."""

    layout: str
    tasks: list[RawTask]


def recognise(value: Any) -> Recognised | None:
    """Returns the tasks of a JSON value; None if it has no known layout."""
    if (task := _task(value)) is not None:
        return Recognised(*task)
    if isinstance(value, list) and value:
        return _named(value)
    if not isinstance(value, dict) or not value:
        return None
    if (tasks := _by_id(value)) is not None:
        return Recognised("tasks by id", tasks)
    subsets = {key: _by_id(tasks) for key, tasks in value.items() if isinstance(tasks, dict) and tasks}
    found = [
        RawTask(task.id, task.train, task.test, task.where, SUBSET_NAMES.get(key, key))
        for key, tasks in subsets.items()
        for task in tasks or ()
    ]
    if not found or None in subsets.values():
        return None
    return Recognised("tasks by subset", found)


def recognise_line(value: Any, number: int, stem: str) -> RawTask | None:
    """Returns the task of a line, with its own id or `STEM-NUMBER`; None if it has no known layout."""
    if isinstance(value, dict) and "data" in value and (task := _task(value["data"])) is not None:
        (raw,) = task[1]
        return _identified(value, raw, f"{stem}-{number}", f", line {number}")
    if (task := _task(value)) is None:
        return None
    return _identified(value, task[1][0], f"{stem}-{number}", f", line {number}")


def is_pair(value: Any) -> bool:
    """Returns whether a value is a pair: an object with an input, or two grids."""
    if isinstance(value, dict):
        return "input" in value
    return isinstance(value, list) and len(value) == 2 and all(map(is_grid, value))


def is_grid(value: Any) -> bool:
    """Returns whether a value is a list of lists of plain values, of any size."""
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], list)
        and bool(value[0])
        and not isinstance(value[0][0], (list, dict))
    )


def is_solutions(value: Any) -> bool:
    """Returns whether a value is the content of a solutions file: lists of grids by id."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(grids, list) and grids and all(map(is_grid, grids)) for grids in value.values())
    )


def describe(value: Any) -> str:
    """Returns what a value is, in a few words, for errors."""
    if isinstance(value, dict):
        keys = ", ".join(repr(key) for key in list(value)[:4]) + (", .." if len(value) > 4 else "")
        return f"an object with the keys {keys}" if value else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)} values, the first {describe(value[0])}" if value else "an empty list"
    kinds: dict[type, str] = {str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def _task(value: Any) -> tuple[str, list[RawTask]] | None:
    """Returns the name of the layout and one task, if the value is that of one task."""
    if isinstance(value, dict):
        sides = [value.get(name, []) for name in ("train", "test")]
        if "train" in value and all(isinstance(side, list) and all(map(is_pair, side)) for side in sides):
            return "tasks", [RawTask(None, *sides)]
        examples = value.get("examples")
        if isinstance(examples, list) and examples and all(map(is_pair, examples)):
            return "tasks with examples", [RawTask(None, examples, [])]
    elif isinstance(value, list) and value and all(map(is_pair, value)):
        return "lists of pairs", [RawTask(None, value, [])]
    return None


def _by_id(value: dict[str, Any]) -> list[RawTask] | None:
    tasks = []
    for task_id, content in value.items():
        if (task := _task(content)) is None:
            return None
        (raw,) = task[1]
        tasks.append(RawTask(task_id, raw.train, raw.test, f": task {task_id!r}"))
    return tasks


def _named(values: list[Any]) -> Recognised | None:
    tasks = []
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict) or (task := recognise_line(value, number, "task")) is None:
            return None
        where = f": entry {number}"
        tasks.append(RawTask(task.id, task.train, task.test, where))
    return Recognised("lists of tasks", tasks)


def _identified(value: Any, raw: RawTask, otherwise: str, where: str) -> RawTask:
    """Returns the task with the id that its value has."""
    given = [value[key] for key in _ID_KEYS if key in value] if isinstance(value, dict) else []
    named = next((str(v) for v in given if isinstance(v, (str, int)) and not isinstance(v, bool) and str(v)), otherwise)
    return RawTask(named.removesuffix(".json"), raw.train, raw.test, where)
