"""Reads the tasks of one file: recognises its layout, draws pairs, parses only what is kept, leaves out what does not
fit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataset.encoding import MAX_GRID
from dataset.hashing import task_seed
from dataset.layouts import folders, json_text
from dataset.layouts.recognise import (
    LAYOUTS,
    RawTask,
    Recognised,
    describe,
    is_grid,
    is_pair,
    is_solutions,
    recognise,
    recognise_line,
)
from dataset.tasks import GridTooLargeError, PackedGrid, Pair, Task, check_task_id, pack_grid, parse_grid
from utils.errors import DataError

MANY_PAIRS = 50
"""Of tasks with more pairs, `max_pairs` are drawn before they are parsed.  Others are parsed whole, so that tasks which
occur twice are found, and the manifest knows them by all their inputs; they are capped later
(`dataset.build.select_tasks`)."""

FEW = 3
"""This many of what is left out are named."""


@dataclass
class SourceReport:
    """What became of the files of one source.

    layouts: the number of files of each layout.
    passed_over: files without tasks: indexes, splits, metadata.
    too_large: task, side and number of each pair that does not fit, with its size.
    emptied: tasks without a pair that fits.
    test_pairs: subset, and what is said of it, for each test pair that does not fit.
    not_parsed: pairs that a cap left unparsed, by subset.
    """

    layouts: Counter[str] = field(default_factory=Counter)
    passed_over: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    test_pairs: list[tuple[str, str]] = field(default_factory=list)
    not_parsed: Counter[str] = field(default_factory=Counter)

    def left_out(self) -> dict[str, Any]:
        """Returns counts and a few names of what is left out, for the manifest; empty if that is nothing."""
        lists = {"files": self.passed_over, "pairs_too_large": self.too_large, "tasks_too_large": self.emptied}
        return {name: {"count": len(v), "such_as": v[:FEW]} for name, v in lists.items() if v}


@dataclass(frozen=True)
class ReadRules:
    """How the tasks of a source are read.

    max_pairs: pairs of each task to draw; 0: all.
    max_side: a larger pair is left out of tasks whose pairs can be left out one by one.
    """

    max_pairs: int = 0
    max_side: int = MAX_GRID
    seed: int = 0
    id_prefix: str = ""
    test_set: str | None = None


def pack_pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object with its input and output packed, if they are grids: lists of a large file fill the memory.

    See `json_text.unique_keys` for its errors.
    """
    value = json_text.unique_keys(items)
    if "input" in value:
        for side in ("input", "output"):
            if (cells := pack_grid(value.get(side))) is not None:
                value[side] = PackedGrid(cells)
    return value


def read_file(path: Path, subset: str, rules: ReadRules, report: SourceReport, alone: bool = True) -> list[Task]:
    """Returns the tasks of one JSON file, in any known layout.

    Args:
        subset: of tasks whose file does not say which they belong to.
        report: receives what is left out and why.
        alone: whether the file was named by itself.  A file of a folder that contains no grids is passed over.

    Raises:
        DataError: naming the file, what was found in it, and the layouts that are known.
    """
    if json_text.has_lines(path):
        report.layouts["one task per line"] += 1
        return [
            _make_task(raw, path, subset, rules, report) for raw in _lines(path, json_text.read_lines(path, pack_pairs))
        ]
    text = json_text.read_text(path)
    pieces = json_text.cut_objects(text) if rules.max_pairs and subset != rules.test_set else None
    if pieces is not None and len(pieces) > max(rules.max_pairs, MANY_PAIRS) and is_pair(json.loads(pieces[0])):
        report.layouts["lists of pairs"] += 1
        return [_make_task(RawTask(None, pieces, []), path, subset, rules, report)]
    numbered = _values_per_line(text, path)
    if numbered is not None:
        report.layouts["one task per line"] += 1
        return [_make_task(raw, path, subset, rules, report) for raw in _lines(path, iter(numbered))]
    value = json_text.parse_json(text, str(path), pack_pairs)
    del text
    kind = folders.kind_of(path)
    if (found := recognise(value)) is None:
        if not alone and (not _holds_grids(value) or is_solutions(value)):
            if not folders.is_read_with_challenges(path):
                report.passed_over.append(path.name)
            return []
        raise DataError(f"{path} is {describe(value)}, which is no known layout: use {LAYOUTS}, or leave it out")
    if kind == "challenges" and (solutions := folders.solutions_beside(path)) is not None:
        found = _with_solutions(found, solutions, path)
    report.layouts[found.layout] += 1
    return [_make_task(raw, path, subset, rules, report) for raw in found.tasks]


def _values_per_line(text: str, path: Path) -> list[tuple[int, Any]] | None:
    """Returns numbers and values of the lines, if the text is not one JSON value but its first line is."""
    first, newline, rest = text.lstrip().partition("\n")
    if not newline or not rest.strip() or first.rstrip()[-1:] not in ("}", "]") or rest.lstrip()[:1] not in ("{", "["):
        return None
    lines = text.split("\n")
    return [
        (i, json_text.parse_json(line, f"{path}, line {i}", pack_pairs))
        for i, line in enumerate(lines, 1)
        if line.strip()
    ]


def _lines(path: Path, numbered: Iterator[tuple[int, Any]]) -> Iterator[RawTask]:
    stem = json_text.stem_of(path)
    for number, value in numbered:
        if (raw := recognise_line(value, number, stem)) is not None:
            yield raw
        elif (found := recognise(value)) is not None:
            yield from (replace(task, where=f", line {number}{task.where}") for task in found.tasks)
        else:
            raise DataError(
                f"{path}, line {number} is {describe(value)}, which is no known layout: use {LAYOUTS}, or leave it out"
            )


def _holds_grids(value: Any) -> bool:
    """Returns whether a value contains a pair or a grid of colours, down to a depth of four."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if is_pair(item) or (depth > 0 and is_grid(item) and all(type(c) is int and 0 <= c <= 9 for c in item[0])):
            return True
        if depth < 4 and isinstance(item, (dict, list)):
            waiting += [(part, depth + 1) for part in (item.values() if isinstance(item, dict) else item[:50])]
    return False


def _with_solutions(found: Recognised, path: Path, challenges: Path) -> Recognised:
    """Returns the tasks with the outputs of a solutions file."""
    known = json_text.read_json(path)
    ids = {task.id for task in found.tasks}
    if not isinstance(known, dict):
        raise DataError(
            f"{path} is {describe(known)}, not lists of grids by id: use the solutions of {challenges.name}"
        )
    if other := sorted(ids ^ known.keys(), key=str):
        raise DataError(
            f"{path} has solutions for other tasks than {challenges.name} (such as {other[0]!r}): "
            "use files of the same release"
        )
    return Recognised(
        f"{found.layout} with solutions", [_solved(t, known[t.id], path, challenges) for t in found.tasks]
    )


def _solved(task: RawTask, grids: Any, path: Path, challenges: Path) -> RawTask:
    where = f"{path}: task {task.id!r}"
    if not isinstance(grids, list) or len(grids) != len(task.test):
        count = len(grids) if isinstance(grids, list) else "no"
        raise DataError(f"{where} has {count} solutions for {len(task.test)} test inputs: use matching files")
    test = []
    for i, (pair, output) in enumerate(zip(task.test, grids, strict=True)):
        given = pair.get("output") if isinstance(pair, dict) else pair[1]
        if isinstance(given, PackedGrid):
            given = given.cells.tolist()
        if given is not None and given != output:
            raise DataError(f"{where}, solution {i} is not the output in {challenges.name}: correct one")
        test.append({"input": pair["input"] if isinstance(pair, dict) else pair[0], "output": output})
    return replace(task, test=test)


def _make_task(raw: RawTask, path: Path, subset: str, rules: ReadRules, report: SourceReport) -> Task:
    """Draws and parses the pairs of a task.  A task without a pair that fits has none."""
    task_id = json_text.stem_of(path) if raw.id is None else raw.id
    subset = raw.subset or subset
    where = f"{path}{raw.where}" if raw.where else f"{path}: task {task_id!r}"
    check_task_id(task_id, where)
    if not raw.train and not raw.test:
        raise DataError(f"{where}, train is empty or not a list: a task needs at least one pair")
    tested = subset == rules.test_set
    cap = 0 if tested or len(raw.train) + len(raw.test) <= MANY_PAIRS else rules.max_pairs
    one_by_one = not tested and not (raw.train and raw.test)
    side = rules.max_side if one_by_one else MAX_GRID
    if cap and not one_by_one and _largest(raw) > rules.max_side:
        cap = 0  # the whole task is left out later

    def take(pairs: list[Any], most: int, name: str, label: str) -> tuple[Pair, ...]:
        drawn = len(pairs) > most and cap > 0
        order: list[int] = list(range(len(pairs)))
        if drawn:
            prefixed = rules.id_prefix + task_id
            order.sort(key=lambda i: (task_seed(rules.seed, f"{name} {i} of {prefixed}"), i))
        kept: dict[int, Pair] = {}
        for i in order:
            if drawn and len(kept) >= most:
                report.not_parsed[subset] += len(pairs) - most
                break
            at = f"{where}, {label} pair {i}"
            try:
                pair = _parse_pair(pairs[i], at, known=label == "train")
                for grid in pair:
                    if grid is not None and max(grid.shape) > side:
                        raise GridTooLargeError(
                            f"{at} is {grid.shape[0]} x {grid.shape[1]}, larger than {side} x {side}"
                        )
            except GridTooLargeError as error:
                report.too_large.append(f"{task_id}, {label} pair {i}")
                if label == "test":
                    report.test_pairs.append((subset, str(error)))
            else:
                kept[i] = pair
        return tuple(kept[i] for i in sorted(kept))

    train = take(raw.train, cap, "demonstration", "train")
    left = cap - len(train)
    test = () if cap and left <= 0 else take(raw.test, left, "test pair", "test")
    if not train and not test:
        report.emptied.append(task_id)
    return Task(task_id, subset, train, test)


def _parse_pair(value: Any, at: str, known: bool) -> Pair:
    """Parses a pair.

    Args:
        known: whether the output must be there.
    """
    if isinstance(value, str):
        value = json_text.parse_json(value, at)
    if isinstance(value, list):
        value = dict(zip(("input", "output"), value, strict=True))
    for side in ("input", "output") if known else ("input",):
        if value.get(side) is None:
            raise DataError(f"{at} has no {side!r}: correct the file")
    output = value.get("output")
    return parse_grid(value["input"], f"{at}, input"), None if output is None else parse_grid(output, f"{at}, output")


def _largest(raw: RawTask) -> int:
    """Returns the longest side of all grids, without parsing them."""
    pairs = [list(pair.values()) if isinstance(pair, dict) else pair for pair in (*raw.train, *raw.test)]
    grids = [grid for pair in pairs for grid in pair if is_grid(grid)]
    packed = [max(grid.cells.shape) for pair in pairs for grid in pair if isinstance(grid, PackedGrid)]
    return max([*packed, *(max(len(grid), len(grid[0])) for grid in grids)], default=0)


def unique_ids(loaded: list[tuple[Task, str]], remedy: Callable[[str], str]) -> list[Task]:
    """Returns the tasks of a source without those that occur twice in one subset with the same content.

    Args:
        loaded: each task with the place that it was read from.
        remedy: returns what to do about the second of two places.

    Raises:
        DataError: naming both places, if two tasks of one subset and id differ.
    """
    first: dict[tuple[str, str], tuple[Task, str]] = {}
    for task, where in loaded:
        other, other_where = first.setdefault((task.subset, task.id), (task, where))
        if other is not task and not other.same_content(task):
            if where == other_where:
                raise DataError(f"{where} has two different tasks with the id {task.id!r}: give one of them another id")
            raise DataError(f"{other_where} and {where} have different tasks with the id {task.id!r}: {remedy(where)}")
    return [task for task, _ in first.values()]
