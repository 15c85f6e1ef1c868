"""Writes a data set: into a folder beside its place, moved there only when it is whole."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.encoding import MAX_GRID, VOCAB_SIZE
from dataset.storage import checksums, schema
from dataset.storage.expanded_writer import _write_expanded
from dataset.storage.install import _install
from dataset.storage.schema import Manifest, SplitMetadata
from dataset.tasks import Task


def write(
    target: Path,
    tasks: list[Task],
    test_ids: set[str],
    augmentations: list[np.ndarray],
    *,
    fmt: str,
    side: int,
    seed: int,
    identifiers_start: int,
    sources: list[str],
    settings: dict[str, Any],
    counts: dict[str, int],
    task_keys: dict[str, str],
    progress: Callable[[int, int], None],
    weights: list[float] | None = None,
    workers: int = 1,
) -> Manifest:
    """Writes the data set and returns its manifest.

    Args:
        tasks: in the order of their identifiers.  test_ids: those whose test pairs are the test split.
        augmentations: per task uint8 [puzzles, 11], the identity first.
        fmt: compact or expanded.  side: of the canvas.
        counts: what else the manifest is to count.
        task_keys: what the manifest says of tasks whatever their name (`dataset.build.duplicate_tasks.inputs_key`).
        progress: told (examples written, examples in all).
        weights: visits of each task per epoch; None: one each.
        workers: threads that make the examples of the expanded format; the bytes do not depend on it.

    Raises:
        ValueError: if `target` holds something else, or the disk has no room.
    """
    made_of = {
        "format": fmt,
        "sources": sources,
        "settings": settings,
        "task_keys": task_keys,
        "puzzles": checksums.puzzles_digest([task.id for task in tasks], augmentations, identifiers_start),
    }

    def fill(folder: Path) -> dict[Path, str]:
        _write_common(folder, tasks, test_ids, augmentations, side, identifiers_start)
        weighted = weights if weights and set(weights) != {1.0} else None
        _write_compact(folder, tasks, test_ids, augmentations, identifiers_start, weighted)
        if fmt == "compact":
            return {}
        return _write_expanded(folder, tasks, augmentations, seed, identifiers_start, progress, workers)

    counted = {"tasks": len(tasks), "test_tasks": len(test_ids), "puzzles": sum(map(len, augmentations))}
    return _install(target, made_of, counted, counts, _bytes_needed(tasks, augmentations, fmt, side), fill)


@dataclass
class Examples:
    """A split of puzzles that have one example each and no identity of their own.

    inputs, labels: uint8 [N, seq_len].  group_sizes: puzzles of each group, in order.
    """

    inputs: np.ndarray
    labels: np.ndarray
    group_sizes: np.ndarray


def write_examples(
    target: Path,
    splits: Mapping[str, Examples],
    *,
    vocab_size: int,
    sources: list[str],
    settings: dict[str, Any],
    counts: dict[str, int],
) -> Manifest:
    """Writes examples in the expanded format, all under the blank identifier, and returns the manifest.

    Raises:
        ValueError: if `target` holds something else, or the disk has no room.
    """
    blank = checksums.puzzles_digest([schema.BLANK], [np.empty((1, 0), dtype=np.uint8)], 0)
    made_of = {"format": "expanded", "sources": sources, "settings": settings, "puzzles": blank}

    def fill(folder: Path) -> dict[Path, str]:
        for name, examples in splits.items():
            N = len(examples.inputs)
            metadata = SplitMetadata(
                vocab_size=vocab_size,
                seq_len=examples.inputs.shape[1],
                num_puzzle_identifiers=1,
                total_groups=len(examples.group_sizes),
                mean_puzzle_examples=1.0,
                total_puzzles=N,
                sets=[schema.SET],
            )
            _dump(folder / name / schema.SPLIT_METADATA, metadata.model_dump(exclude_none=True))
            place = functools.partial(schema.array_path, folder / name, schema.SET)
            np.save(place("inputs"), examples.inputs)
            np.save(place("labels"), examples.labels)
            np.save(place("puzzle_identifiers"), np.zeros(N, dtype=np.int32))
            np.save(place("puzzle_indices"), np.arange(N + 1, dtype=np.int32))
            np.save(place("group_indices"), np.concatenate(([0], np.cumsum(examples.group_sizes))).astype(np.int32))
        _dump(folder / schema.IDENTIFIERS, [schema.BLANK])
        return {}

    needed = sum(examples.inputs.nbytes + examples.labels.nbytes for examples in splits.values()) + 1_000_000
    return _install(target, made_of, {}, counts, needed, fill)


def _bytes_needed(tasks: list[Task], augmentations: list[np.ndarray], fmt: str, side: int) -> int:
    cells = sum(grid.size for task in tasks for pair in task.pairs for grid in pair if grid is not None)
    compact = cells * 8 + sum(rows.nbytes for rows in augmentations) + 1_000_000
    if fmt == "compact":
        return compact
    examples = sum(len(task.pairs) * len(rows) for task, rows in zip(tasks, augmentations, strict=True))
    return compact + examples * 2 * side * side + 64 * sum(map(len, augmentations))


def _dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")


def _write_common(
    folder: Path, tasks: list[Task], test_ids: set[str], augmentations: list[np.ndarray], side: int, start: int
) -> None:
    _dump(folder / schema.TEST_TASKS, {task.id: task.to_json() for task in tasks if task.id in test_ids})
    identifiers = start + sum(map(len, augmentations))
    for split in schema.SPLITS:
        chosen = [(t, a) for t, a in zip(tasks, augmentations, strict=True) if split == "train" or t.id in test_ids]
        puzzles = sum(len(a) for _, a in chosen)
        examples = sum(len(_examples(t, test_ids, split)) * len(a) for t, a in chosen)
        metadata = SplitMetadata(
            vocab_size=VOCAB_SIZE,
            seq_len=side * side,
            num_puzzle_identifiers=identifiers,
            total_groups=len(chosen),
            mean_puzzle_examples=examples / puzzles if puzzles else 0.0,
            total_puzzles=puzzles,
            sets=[schema.SET],
            row_stride=None if side == MAX_GRID else MAX_GRID,
        )
        _dump(folder / split / schema.SPLIT_METADATA, metadata.model_dump(exclude_none=True))


def _examples(task: Task, test_ids: set[str], split: str) -> tuple[Any, ...]:
    """The pairs of a task that belong to a split: test outputs of test tasks never reach the train split."""
    if split == "test":
        return task.test
    return task.train if task.id in test_ids else task.pairs


def _write_compact(
    folder: Path,
    tasks: list[Task],
    test_ids: set[str],
    augmentations: list[np.ndarray],
    start: int,
    weights: list[float] | None,
) -> None:
    cells: list[np.ndarray] = []
    rows: list[list[int]] = []
    at = 0
    for task in tasks:
        for pair in task.pairs:
            row: list[int] = []
            for grid in pair:
                row += (at, *grid.shape) if grid is not None else (at, 0, 0)
                if grid is not None:
                    cells.append(grid.reshape(-1))
                    at += grid.size
            rows.append(row)
    np.save(folder / schema.GRIDS, np.concatenate(cells))
    np.save(folder / schema.PAIRS, np.array(rows, dtype=np.int32))
    np.save(folder / schema.AUGMENTATIONS, np.concatenate(augmentations))
    described: list[dict[str, Any]] = [
        {
            "id": task.id,
            "subset": task.subset,
            "test_split": task.id in test_ids,
            "demonstrations": len(task.train),
            "pairs": len(task.pairs),
            "puzzles": len(rows),
        }
        for task, rows in zip(tasks, augmentations, strict=True)
    ]
    for entry, weight in zip(described, weights or [], strict=weights is not None):
        entry["weight"] = weight
    _dump(folder / schema.TASKS, {"puzzle_identifiers_start": start, "tasks": described})
