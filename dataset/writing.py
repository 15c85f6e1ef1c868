"""Writes a data set: into a folder beside its place, moved there only when it is whole."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numba
import numpy as np

from dataset import storage
from dataset.augmentation import Augmentation
from dataset.encoding import MAX_GRID, VOCAB_SIZE
from dataset.hashing import splitmix64
from dataset.planning import task_seed
from dataset.storage import Manifest, SplitMetadata
from dataset.tasks import Task
from utils import files

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
        task_keys: what the manifest says of tasks whatever their name (`dataset.overlap.inputs_key`).
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
        "puzzles": storage.puzzles_digest([task.id for task in tasks], augmentations, identifiers_start),
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
    blank = storage.puzzles_digest([storage.BLANK], [np.empty((1, 0), dtype=np.uint8)], 0)
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
                sets=[storage.SET],
            )
            _dump(folder / name / storage.SPLIT_METADATA, metadata.model_dump(exclude_none=True))
            place = functools.partial(storage.array_path, folder / name, storage.SET)
            np.save(place("inputs"), examples.inputs)
            np.save(place("labels"), examples.labels)
            np.save(place("puzzle_identifiers"), np.zeros(N, dtype=np.int32))
            np.save(place("puzzle_indices"), np.arange(N + 1, dtype=np.int32))
            np.save(place("group_indices"), np.concatenate(([0], np.cumsum(examples.group_sizes))).astype(np.int32))
        _dump(folder / storage.IDENTIFIERS, [storage.BLANK])
        return {}

    needed = sum(examples.inputs.nbytes + examples.labels.nbytes for examples in splits.values()) + 1_000_000
    return _install(target, made_of, {}, counts, needed, fill)


def _install(
    target: Path,
    made_of: dict[str, Any],
    counted: dict[str, int],
    counts: dict[str, int],
    needed: int,
    fill: Callable[[Path], dict[Path, str]],
) -> Manifest:
    """Lets `fill` write a data set into a folder beside `target`, adds the manifest and moves it there.

    Args:
        made_of: the manifest's fields that say whether an old data set is the same one.
        counted, counts: what the manifest counts, before and after the numbers of examples.
        needed: bytes of room on the disk.
        fill: returns the SHA-256 of those files that it has hashed while it wrote.
    """
    target = target.resolve()
    made_of = {"format_version": storage.FORMAT_VERSION, **made_of}
    _check_target(target, made_of)
    _check_room(target, needed)
    staging = target.with_name(f".{target.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        checksums = fill(staging)
        listed = {
            str(path.relative_to(staging)): {
                "bytes": path.stat().st_size,
                "sha256": checksums.get(path) or files.sha256(path),
            }
            for path in sorted(staging.rglob("*"))
            if path.is_file()
        }
        examples = {f"{split}_examples": storage.open_split(staging, split).num_examples for split in storage.SPLITS}
        manifest = Manifest.model_validate(made_of | {"counts": counted | examples | counts, "files": listed})
        (staging / storage.MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _check_target(target, made_of, manifest.fingerprint)
        files.install(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return manifest


def _check_target(target: Path, made_of: dict[str, Any], fingerprint: str | None = None) -> None:
    """Only an empty folder or the same data set may be replaced."""
    if not target.exists():
        return
    if not target.is_dir():
        raise ValueError(f"{target} is a file: choose another --output-dir")
    if not any(target.iterdir()):
        return
    if not (target / storage.MANIFEST).exists():
        raise ValueError(f"{target} already holds other files: choose another --output-dir or remove it")
    try:
        old = storage.open_manifest(target)
    except ValueError:
        old = None
    if (
        old is None
        or any(getattr(old, name) != value for name, value in made_of.items())
        or fingerprint not in (None, old.fingerprint)
    ):
        raise ValueError(f"{target} already holds another data set: choose another --output-dir or remove it")


def _bytes_needed(tasks: list[Task], augmentations: list[np.ndarray], fmt: str, side: int) -> int:
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
            row_stride=None if side == MAX_GRID else MAX_GRID,
        )
        _dump(folder / split / storage.SPLIT_METADATA, metadata.model_dump(exclude_none=True))


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
    np.save(folder / storage.GRIDS, np.concatenate(cells))
    np.save(folder / storage.PAIRS, np.array(rows, dtype=np.int32))
    np.save(folder / storage.AUGMENTATIONS, np.concatenate(augmentations))
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
    _dump(folder / storage.TASKS, {"puzzle_identifiers_start": start, "tasks": described})


def _names(tasks: list[Task], augmentations: list[np.ndarray]) -> Iterator[str]:
    for task, rows in zip(tasks, augmentations, strict=True):
        for transform, *colours in rows.tolist():
            yield Augmentation(transform, tuple(colours)).name(task.id)


@numba.njit(cache=True)
def _hashes(first, count):  # type: ignore[no-untyped-def]
    """splitmix64 of first, first + 1, ..: uint64 [count]."""
    values = np.empty(count, dtype=np.uint64)
    for i in range(count):
        values[i] = splitmix64(first + np.uint64(i))
    return values


def _visit_seeds(tasks: list[Task], augmentations: list[np.ndarray], seed: int) -> np.ndarray:
    """The seed of the one visit of each puzzle that the expanded format holds, uint64 [puzzles]."""
    return np.concatenate(
        [
            _hashes(task_seed(seed, f"offsets of {task.id}"), len(rows))
            for task, rows in zip(tasks, augmentations, strict=True)
        ]
    )


def _write_expanded(
    folder: Path,
    tasks: list[Task],
    augmentations: list[np.ndarray],
    seed: int,
    start: int,
    progress: Callable[[int, int], None],
    workers: int,
) -> dict[Path, str]:
    """Writes every example out from the compact files, then removes these.  Returns the SHA-256 of the large files."""
    splits = {split: storage.open_split(folder, split) for split in storage.SPLITS}
    total, done = sum(split.num_examples for split in splits.values()), 0
    checksums: dict[Path, str] = {}
    for name, split in splits.items():
        place = functools.partial(storage.array_path, folder / name, storage.SET)
        np.save(place("puzzle_identifiers"), split.puzzle_identifiers.astype(np.int32))
        np.save(place("puzzle_indices"), _offsets(split.puzzle_indices))
        np.save(place("group_indices"), _offsets(split.group_indices))
        if name == "train" and split.group_weights is not None:
            np.save(place(storage.GROUP_WEIGHTS), split.group_weights)
        seeds = _visit_seeds(tasks, augmentations, seed) if name == "train" else None
        shape = (split.num_examples, split.metadata.seq_len)
        with (
            _ArrayFile(place("inputs"), shape) as inputs,
            _ArrayFile(place("labels"), shape) as labels,
        ):
            for input_rows, label_rows in _chunks(split, seeds, workers):
                inputs.append(input_rows)
                labels.append(label_rows)
                done += len(input_rows)
                progress(done, total)
        checksums |= {inputs.path: inputs.checksum, labels.path: labels.checksum}
    with open(folder / storage.IDENTIFIERS, "w", encoding="utf-8") as names:
        names.write("[" + ", ".join(json.dumps(storage.BLANK) for _ in range(start)))
        for name in _names(tasks, augmentations):
            names.write(", " + json.dumps(name))
        names.write("]")
    del splits
    for file in (storage.TASKS, storage.GRIDS, storage.PAIRS, storage.AUGMENTATIONS):
        (folder / file).unlink()
    return checksums


def _offsets(values: np.ndarray) -> np.ndarray:
    if int(values[-1]) > np.iinfo(np.int32).max:
        raise ValueError(
            f"the expanded format cannot count {int(values[-1]):,} examples: use --format compact or a lower --num-aug"
        )
    return values.astype(np.int32)


def _chunks(split: storage.Split, seeds: np.ndarray | None, workers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All examples in order, CHUNK at a time; threads make a few chunks ahead."""

    def make(first: int) -> tuple[np.ndarray, np.ndarray]:
        examples = np.arange(first, min(first + CHUNK, split.num_examples))
        if seeds is None:
            return split.read(examples)
        return split.read(examples, seeds[np.searchsorted(split.puzzle_indices, examples, side="right") - 1])

    workers = min(workers, 4)  # one thread makes examples faster than disks write them
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[tuple[np.ndarray, np.ndarray]]] = deque()
        for first in range(0, split.num_examples, CHUNK):
            ahead.append(pool.submit(make, first))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class _ArrayFile:
    """A .npy file of uint8 rows, written from the front and hashed on the way."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path = path
        self._hash = hashlib.sha256()
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        self._stream = path.open("wb")
        self._write(header.getbuffer())

    def append(self, rows: np.ndarray) -> None:
        self._write(rows.data)

    @property
    def checksum(self) -> str:
        return self._hash.hexdigest()

    def _write(self, data: memoryview) -> None:
        self._stream.write(data)
        self._hash.update(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
