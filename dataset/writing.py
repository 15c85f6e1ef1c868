"""Writes a data set: into a folder beside its place, moved there only when it is whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dataset import storage
from dataset.encoding import VOCAB_SIZE
from dataset.planning import task_seed
from dataset.storage import Manifest, SplitMetadata
from dataset.tasks import Task

CHUNK = 16_384


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
    progress: Callable[[int, int], None],
) -> Manifest:
    """Writes the data set and returns its manifest.

    Args:
        tasks: in the order of their identifiers.  test_ids: those whose test pairs are the test split.
        augmentations: per task uint8 [puzzles, 11], the identity first.
        fmt: compact or expanded.  side: of the canvas.
        progress: told (examples written, examples in all).

    Raises:
        ValueError: if `target` holds something else, or the disk has no room.
    """
    _check_target(target)
    _check_room(target, _bytes_needed(tasks, test_ids, augmentations, fmt, side))
    staging = target.with_name(f".{target.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        _write_common(staging, tasks, test_ids, augmentations, side, identifiers_start)
        _write_compact(staging, tasks, test_ids, augmentations, identifiers_start)
        names = _names(tasks, augmentations)
        puzzles = storage.names_digest(names)
        if fmt == "expanded":
            _write_expanded(staging, tasks, augmentations, seed, identifiers_start, progress)
        files = {
            str(path.relative_to(staging)): {"bytes": path.stat().st_size, "sha256": storage.sha256(path)}
            for path in sorted(staging.rglob("*"))
            if path.is_file()
        }
        num_puzzles = sum(map(len, augmentations))
        manifest = Manifest(
            format_version=storage.FORMAT_VERSION,
            format=fmt,
            sources=sources,
            settings=settings,
            counts={"tasks": len(tasks), "test_tasks": len(test_ids), "puzzles": num_puzzles}
            | {f"{split}_examples": storage.open_split(staging, split).num_examples for split in storage.SPLITS},
            puzzles=puzzles,
            files=files,
        )
        (staging / storage.MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
        if target.exists():
            old = storage.open_manifest(target) if (target / storage.MANIFEST).exists() else None
            if old is not None and old.fingerprint != manifest.fingerprint:
                raise ValueError(f"{target} already holds another data set: choose another --output-dir or remove it")
            shutil.rmtree(target)
        os.replace(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return manifest


def _check_target(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir() or (any(target.iterdir()) and not (target / storage.MANIFEST).exists()):
        raise ValueError(f"{target} already exists and is no data set of this program: choose another --output-dir")


def _bytes_needed(tasks: list[Task], test_ids: set[str], augmentations: list[np.ndarray], fmt: str, side: int) -> int:
    cells = sum(grid.size for task in tasks for pair in task.pairs for grid in pair if grid is not None)
    compact = cells * 8 + sum(rows.nbytes for rows in augmentations) + 1_000_000
    if fmt == "compact":
        return compact
    examples = sum(len(task.pairs) * len(rows) for task, rows in zip(tasks, augmentations, strict=True))
    return compact + examples * 2 * side * side + 64 * sum(map(len, augmentations))


def _check_room(target: Path, needed: int) -> None:
    folder = target.resolve().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{target} needs {needed / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free: make room, lower --num-aug "
            "or use --format compact"
        )


def _dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")


def _write_common(
    folder: Path, tasks: list[Task], test_ids: set[str], augmentations: list[np.ndarray], side: int, start: int
) -> None:
    _dump(folder / storage.TEST_TASKS, {task.id: task.to_json() for task in tasks if task.id in test_ids})
    identifiers = start + sum(map(len, augmentations))
    for split in storage.SPLITS:
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
            sets=[storage.SET],
        )
        _dump(folder / split / storage.SPLIT_METADATA, metadata.model_dump())


def _examples(task: Task, test_ids: set[str], split: str) -> tuple[Any, ...]:
    """The pairs of a task that belong to a split: test outputs of test tasks never reach the train split."""
    if split == "test":
        return task.test
    return task.train if task.id in test_ids else task.pairs


def _write_compact(
    folder: Path, tasks: list[Task], test_ids: set[str], augmentations: list[np.ndarray], start: int
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
    np.save(folder / storage.GRIDS, np.concatenate(cells))
    np.save(folder / storage.PAIRS, np.array(rows, dtype=np.int32))
    np.save(folder / storage.AUGMENTATIONS, np.concatenate(augmentations))
    described = [
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
    _dump(folder / storage.TASKS, {"puzzle_identifiers_start": start, "tasks": described})


def _names(tasks: list[Task], augmentations: list[np.ndarray]) -> Iterator[str]:
    for task, rows in zip(tasks, augmentations, strict=True):
        yield task.id
        for row in rows[1:]:
            yield f"{task.id}|||t{row[0]}|||{''.join(map(str, row[1:].tolist()))}"


def _write_expanded(
    folder: Path,
    tasks: list[Task],
    augmentations: list[np.ndarray],
    seed: int,
    start: int,
    progress: Callable[[int, int], None],
) -> None:
    """Writes every example out from the compact files, then removes these."""
    splits = {split: storage.open_split(folder, split) for split in storage.SPLITS}
    total, done = sum(split.num_examples for split in splits.values()), 0
    for name, split in splits.items():
        base = folder / name / f"{storage.SET}__"
        np.save(f"{base}puzzle_identifiers.npy", split.puzzle_identifiers.astype(np.int32))
        np.save(f"{base}puzzle_indices.npy", split.puzzle_indices.astype(np.int32))
        np.save(f"{base}group_indices.npy", split.group_indices.astype(np.int32))
        rng = np.random.default_rng(int(task_seed(seed, "offsets")))
        shape = (split.num_examples, split.metadata.seq_len)
        with open(f"{base}inputs.npy", "wb") as inputs, open(f"{base}labels.npy", "wb") as labels:
            for stream in (inputs, labels):
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
            seeds = rng.integers(0, 2**64, len(split.puzzle_identifiers), dtype=np.uint64)
            for first in range(0, split.num_examples, CHUNK):
                examples = np.arange(first, min(first + CHUNK, split.num_examples))
                puzzle = np.searchsorted(split.puzzle_indices, examples, side="right") - 1
                for stream, rows in zip((inputs, labels), split.read(examples, seeds[puzzle]), strict=True):
                    stream.write(rows.data)
                done += len(examples)
                progress(done, total)
    with open(folder / storage.IDENTIFIERS, "w", encoding="utf-8") as names:
        names.write("[" + ", ".join(json.dumps(storage.BLANK) for _ in range(start)))
        for name in _names(tasks, augmentations):
            names.write(", " + json.dumps(name))
        names.write("]")
    del splits
    for file in (storage.TASKS, storage.GRIDS, storage.PAIRS, storage.AUGMENTATIONS):
        (folder / file).unlink()
