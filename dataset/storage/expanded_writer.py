"""Writes every example of a data set in the published (expanded) layout."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numba
import numpy as np

from dataset.augmentation import Augmentation
from dataset.hashing import splitmix64, task_seed
from dataset.storage import reader, schema, splits
from dataset.tasks import Task

CHUNK = 16_384


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
    splits = {split: reader.open_split(folder, split) for split in schema.SPLITS}
    total, done = sum(split.num_examples for split in splits.values()), 0
    checksums: dict[Path, str] = {}
    for name, split in splits.items():
        place = functools.partial(schema.array_path, folder / name, schema.SET)
        np.save(place("puzzle_identifiers"), split.puzzle_identifiers.astype(np.int32))
        np.save(place("puzzle_indices"), _offsets(split.puzzle_indices))
        np.save(place("group_indices"), _offsets(split.group_indices))
        if name == "train" and split.group_weights is not None:
            np.save(place(schema.GROUP_WEIGHTS), split.group_weights)
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
    with open(folder / schema.IDENTIFIERS, "w", encoding="utf-8") as names:
        names.write("[" + ", ".join(json.dumps(schema.BLANK) for _ in range(start)))
        for name in _names(tasks, augmentations):
            names.write(", " + json.dumps(name))
        names.write("]")
    del splits
    for file in (schema.TASKS, schema.GRIDS, schema.PAIRS, schema.AUGMENTATIONS):
        (folder / file).unlink()
    return checksums


def _offsets(values: np.ndarray) -> np.ndarray:
    if int(values[-1]) > np.iinfo(np.int32).max:
        raise ValueError(
            f"the expanded format cannot count {int(values[-1]):,} examples: use --format compact or a lower --num-aug"
        )
    return values.astype(np.int32)


def _chunks(split: splits.Split, seeds: np.ndarray | None, workers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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
