"""Writes data sets: into a folder beside their place, from where they are moved only when they are complete."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dataset.storage import checksums, compact, schema
from dataset.storage.content import AugmentedTasks, DataOrigin, PlainExamples
from dataset.storage.expanded_writer import expand_compact_files
from dataset.storage.install import install_data_set
from dataset.storage.schema import Manifest
from dataset.tasks import Task

Format = Literal["compact", "expanded"]


def write_data_set(
    target: Path,
    content: AugmentedTasks,
    origin: DataOrigin,
    *,
    fmt: Format,
    seed: int,
    progress: Callable[[int, int], None],
    workers: int = 1,
) -> Manifest:
    """Writes a data set of ARC tasks and returns its manifest.

    The expanded format is made from compact files: these are written first, opened as a data set whose examples are
    then all read and written, and removed.  So one encoder makes the examples of both formats.

    Args:
        fmt: compact or expanded.
        seed: decides the shifts of the examples of the expanded format; the compact format has none.
        progress: called with (examples written, examples in total); the compact format writes none.
        workers: threads that make the examples of the expanded format.  The bytes do not depend on it.

    Raises:
        SettingError: if `target` contains something else, or the disk has no room.
    """
    task_ids = [task.id for task in content.tasks]
    identity = {
        "format": fmt,
        "sources": origin.sources,
        "settings": origin.settings,
        "task_keys": origin.task_keys,
        "puzzles": checksums.puzzles_digest(task_ids, content.augmentations, content.identifiers_start),
    }

    def write_files(folder: Path) -> dict[Path, str]:
        _write_tasks(folder / schema.TEST_TASKS, (task for task in content.tasks if task.id in content.test_ids))
        for split in schema.SPLITS:
            _write_metadata(folder, split, content.metadata(split))
        _write_compact(folder, content)
        return expand_compact_files(folder, content, seed, progress, workers) if fmt == "expanded" else {}

    counts = content.counts() | origin.counts
    return install_data_set(target, identity, counts, _bytes_needed(content, fmt), write_files)


def write_examples(target: Path, splits: Mapping[str, PlainExamples], vocab_size: int, origin: DataOrigin) -> Manifest:
    """Writes examples that share the blank identifier, in the expanded format, and returns the manifest.

    Raises:
        SettingError: if `target` contains something else, or the disk has no room.
    """
    identity = {
        "format": "expanded",
        "sources": origin.sources,
        "settings": origin.settings,
        "puzzles": checksums.puzzles_digest([schema.BLANK], [np.empty((1, 0), dtype=np.uint8)], 0),
    }

    def write_files(folder: Path) -> dict[Path, str]:
        for split, examples in splits.items():
            N = len(examples.inputs)
            _write_metadata(folder, split, examples.metadata(vocab_size))
            path = functools.partial(schema.array_path, folder / split, schema.SET)
            np.save(path("inputs"), examples.inputs)
            np.save(path("labels"), examples.labels)
            np.save(path("puzzle_identifiers"), np.zeros(N, dtype=np.int32))
            np.save(path("puzzle_indices"), np.arange(N + 1, dtype=np.int32))
            np.save(path("group_indices"), np.concatenate(([0], np.cumsum(examples.group_sizes))).astype(np.int32))
        _write_json(folder / schema.IDENTIFIERS, [schema.BLANK])
        return {}

    counts = {f"{split}_examples": len(splits[split].inputs) for split in schema.SPLITS} | origin.counts
    bytes_needed = sum(examples.inputs.nbytes + examples.labels.nbytes for examples in splits.values()) + 1_000_000
    return install_data_set(target, identity, counts, bytes_needed, write_files)


def _bytes_needed(content: AugmentedTasks, fmt: Format) -> int:
    """Estimates the room on the disk, rather too much than too little."""
    cells = sum(grid.size for pairs in content.all_pairs() for pair in pairs for grid in pair if grid is not None)
    for_compact = cells * 8 + sum(rows.nbytes for rows in content.augmentations) + 1_000_000
    if fmt == "compact":
        return for_compact
    examples = sum(len(task.pairs) * len(rows) for task, rows in content.in_split("train"))
    generated = content.generated_in("train")
    examples += sum(len(more.pairs) * len(rows) for more, rows in generated)
    puzzles = content.num_puzzles + sum(len(rows) for _, rows in generated)
    return for_compact + examples * 2 * content.side**2 + 64 * puzzles


def _write_compact(folder: Path, content: AugmentedTasks) -> None:
    grids, pairs = compact.join_grids(content.all_pairs())
    np.save(folder / schema.GRIDS, grids)
    np.save(folder / schema.PAIRS, pairs)
    _save_parts(folder / schema.AUGMENTATIONS, content.augmentations)
    _write_json(folder / schema.TASKS, compact.make_task_list(content).model_dump(exclude_unset=True))


def _write_metadata(folder: Path, split: str, metadata: schema.SplitMetadata) -> None:
    _write_json(folder / split / schema.SPLIT_METADATA, metadata.model_dump(exclude_none=True))


def _save_parts(path: Path, parts: Sequence[np.ndarray]) -> None:
    """Writes arrays [n, ..] one after the other as one array, as `numpy.save` would, without joining them in memory."""
    joined = (sum(map(len, parts)), *parts[0].shape[1:])
    header = {"descr": np.lib.format.dtype_to_descr(parts[0].dtype), "fortran_order": False, "shape": joined}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(np.ascontiguousarray(part).data)


def _write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """Writes a JSON object of tasks by id, one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        separator = "{"
        for task in tasks:
            stream.write(f"{separator}{_json_of(task.id)}:{_json_of(task.to_json())}")
            separator = ","
        stream.write("{}" if separator == "{" else "}")


def _json_of(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_json_of(value), encoding="utf-8")
