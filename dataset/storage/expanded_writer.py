"""Writes the expanded (published) format from compact files, and makes it in memory."""

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
from dataset.storage import reader, schema
from dataset.storage.content import AugmentedTasks, PlainExamples
from dataset.storage.splits import ExpandedSplit, Split
from utils.errors import SettingError

EXAMPLES_AT_ONCE = 16_384
MOST_WORKERS = 4  # one thread makes examples faster than disks write them


def expand_compact_files(
    folder: Path, content: AugmentedTasks, seed: int, progress: Callable[[int, int], None], workers: int
) -> dict[Path, str]:
    """Turns compact files of `content` into the expanded format: reads every example, writes it, removes the files.

    Returns:
        The SHA-256 of the large files, by path.
    """
    total, done = sum(content.num_examples(split) for split in schema.SPLITS), 0

    def count(examples: int) -> None:
        nonlocal done
        done += examples
        progress(done, total)

    checksums: dict[Path, str] = {}
    for name in schema.SPLITS:
        seeds = _visit_seeds(content, seed) if name == "train" else None
        checksums |= _expand_split(folder, name, seeds, count, workers)
    _write_names(folder / schema.IDENTIFIERS, content)
    for file in (schema.TASKS, schema.GRIDS, schema.PAIRS, schema.AUGMENTATIONS):
        (folder / file).unlink()
    return checksums


def _expand_split(
    folder: Path, name: str, visit_seeds: np.ndarray | None, count: Callable[[int], None], workers: int
) -> dict[Path, str]:
    split = reader.open_split(folder, name)
    path = functools.partial(schema.array_path, folder / name, schema.SET)
    _write_indices(path, split)
    shape = (split.num_examples, split.metadata.seq_len)
    with _ArrayFile(path("inputs"), shape) as inputs, _ArrayFile(path("labels"), shape) as labels:
        for input_rows, label_rows in _read_in_order(split, visit_seeds, workers):
            inputs.append(input_rows)
            labels.append(label_rows)
            count(len(input_rows))
    return {inputs.path: inputs.checksum, labels.path: labels.checksum}


def _write_indices(path: Callable[[str], Path], split: Split) -> None:
    np.save(path("puzzle_identifiers"), split.puzzle_identifiers.astype(np.int32))
    np.save(path("puzzle_indices"), _as_int32(split.puzzle_indices))
    np.save(path("group_indices"), _as_int32(split.group_indices))
    if split.group_weights is not None:
        np.save(path(schema.GROUP_WEIGHTS), split.group_weights)
    if split.visit_sizes is not None:
        np.save(path(schema.VISIT_SIZES), split.visit_sizes)


def _as_int32(starts: np.ndarray) -> np.ndarray:
    if int(starts[-1]) > np.iinfo(np.int32).max:
        raise SettingError(
            f"the expanded format cannot count {int(starts[-1]):,} examples: use --format compact or a lower --num-aug"
        )
    return starts.astype(np.int32)


def _write_names(path: Path, content: AugmentedTasks) -> None:
    """Writes the name of each identifier, one by one: with a million of them the list would take much memory."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write("[" + ", ".join(json.dumps(schema.BLANK) for _ in range(content.identifiers_start)))
        for task, rows in zip(content.tasks, content.augmentations, strict=True):
            for transform, *colours in rows.tolist():
                stream.write(", " + json.dumps(Augmentation(transform, tuple(colours)).name(task.id)))
        stream.write("]")


def _visit_seeds(content: AugmentedTasks, seed: int) -> np.ndarray:
    """Returns the seed of the one visit of each puzzle that the expanded format stores: uint64 [puzzles]."""
    visits = [(f"offsets of {task.id}", rows) for task, rows in content.in_split("train")]
    visits += [(f"offsets of {more.subset} {more.task_id}", rows) for more, rows in content.generated_in("train")]
    return np.concatenate([_hashes(task_seed(seed, name), len(rows)) for name, rows in visits])


@numba.njit(cache=True)
def _hashes(first, count):  # type: ignore[no-untyped-def]
    """Returns splitmix64 of first, first + 1, ..: uint64 [count]."""
    values = np.empty(count, dtype=np.uint64)
    for i in range(count):
        values[i] = splitmix64(first + np.uint64(i))
    return values


def _read_in_order(
    split: Split, visit_seeds: np.ndarray | None, workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields all examples in order, `EXAMPLES_AT_ONCE` at a time.  Threads make a few such pieces ahead.

    Args:
        visit_seeds: uint64 [puzzles]; None means no shifts.
    """

    def read_from(first: int) -> tuple[np.ndarray, np.ndarray]:
        examples = np.arange(first, min(first + EXAMPLES_AT_ONCE, split.num_examples))
        if visit_seeds is None:
            return split.read(examples)
        return split.read(examples, visit_seeds[np.searchsorted(split.puzzle_indices, examples, side="right") - 1])

    workers = min(workers, MOST_WORKERS)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[tuple[np.ndarray, np.ndarray]]] = deque()
        for first in range(0, split.num_examples, EXAMPLES_AT_ONCE):
            ahead.append(pool.submit(read_from, first))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class _ArrayFile:
    """A .npy file of uint8 rows that is written from front to end, and hashed meanwhile."""

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


def examples_in_memory(examples: PlainExamples, vocab_size: int) -> ExpandedSplit:
    """Makes a split of examples that share the blank identifier; it equals one that was written and opened."""
    N = len(examples.inputs)
    inputs, labels = (np.ascontiguousarray(side, dtype=np.uint8) for side in (examples.inputs, examples.labels))
    for array in (inputs, labels):
        array.setflags(write=False)  # as those on the disk: kernels that are compiled for them serve here too
    return ExpandedSplit(
        examples.metadata(vocab_size),
        [inputs],
        [labels],
        group_indices=np.concatenate(([0], np.cumsum(examples.group_sizes))).astype(np.int32),
        puzzle_indices=np.arange(N + 1, dtype=np.int32),
        puzzle_identifiers=np.zeros(N, dtype=np.int32),
    )
