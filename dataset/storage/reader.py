"""A data set on disk, in two formats with one face.

    DATA SET/
        manifest.json                  what it was made of: sources, settings, counts, SHA-256 of every other file
        test_puzzles.json              the test tasks, Kaggle's layout
        train/dataset.json, test/dataset.json

    compact (ours, the default): base grids once, one row per puzzle saying which augmentation it is
        tasks.json                     task ids, their subsets, how many pairs and puzzles each has, visits per epoch
        grids.npy                      uint8, all cells of all grids
        pairs.npy                      int32 [pairs, 6]: input offset, h, w; output offset, h, w (h = 0: not known)
        augmentations.npy              uint8 [puzzles, 11]: dihedral transform, ten colours

    expanded (the published layout): every example written out
        identifiers.json               the name of each identifier
        {train,test}/{set}__inputs.npy, __labels.npy           uint8 [examples, seq_len]
        {train,test}/{set}__puzzle_identifiers.npy             int32 [puzzles]
        {train,test}/{set}__puzzle_indices.npy                 int32 [puzzles + 1], first example of each
        {train,test}/{set}__group_indices.npy                  int32 [groups + 1], first puzzle of each
        train/{set}__group_weights.npy                         float64 [groups], visits per epoch, if not all 1

This module alone knows the file names.  Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from dataset.augmentation import NUM_COLOURS, NUM_DIHEDRAL
from dataset.storage.catalog import PuzzleCatalog
from dataset.storage.schema import (
    AUGMENTATIONS,
    FORMAT_VERSION,
    GRIDS,
    GROUP_WEIGHTS,
    IDENTIFIERS,
    MANIFEST,
    PAIRS,
    SPLIT_METADATA,
    SPLITS,
    TASKS,
    TEST_TASKS,
    Manifest,
    SplitMetadata,
    TaskEntry,
    TaskList,
    array_path,
)
from dataset.storage.splits import CompactSplit, ExpandedSplit, Split
from dataset.tasks import Task, parse_task
from utils.errors import DataError


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path.parent} is not a data set folder (no {path.name}): build one with build_dataset.py"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}): build it anew") from None


def _array(path: Path, dtype: type, ndim: int) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: build the data set anew") from None
    except Exception as error:  # whatever NumPy's reader of headers stumbles over
        raise ValueError(f"{path} is not a plain array ({error}): build it anew") from None
    if array.dtype != dtype or array.ndim != ndim:
        raise ValueError(
            f"{path} is {array.dtype} with {array.ndim} axes, not {np.dtype(dtype)} with {ndim}: build it anew"
        )
    return array


def open_manifest(directory: str | Path) -> Manifest | None:
    """The manifest, or None for a published data set that has none."""
    path = Path(directory) / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = Manifest.model_validate(_json(path))
    except ValidationError as error:
        raise ValueError(f"{path} is not a manifest ({error.errors()[0]['msg']}): build the data set anew") from None
    if manifest.format_version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {manifest.format_version}, this program reads {FORMAT_VERSION}: build it anew"
        )
    return manifest


def _metadata(directory: Path, split: str) -> SplitMetadata:
    path = directory / split / SPLIT_METADATA
    try:
        return SplitMetadata.model_validate(_json(path))
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def open_split(directory: str | Path, split: str) -> Split:
    """One split of a data set of either format, memory-mapped.

    Raises:
        ValueError: naming the file that is missing or not what it should be.
    """
    directory = Path(directory)
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}: use train or test")
    if not (directory / split / SPLIT_METADATA).is_file():
        raise ValueError(
            f"{directory} is not a data set folder (no {split}/{SPLIT_METADATA}): build_dataset.py makes one"
        )
    metadata = _metadata(directory, split)
    return (
        _open_compact(directory, split, metadata)
        if (directory / TASKS).exists()
        else _open_expanded(directory, split, metadata)
    )


def _open_compact(directory: Path, split: str, metadata: SplitMetadata) -> CompactSplit:
    listed, table = _open_tasks(directory)
    tasks = listed.tasks
    chosen = [i for i, task in enumerate(tasks) if split == "train" or task.test_split]
    demonstrations, all_pairs, puzzles = (table[chosen, i] for i in range(3))
    first_pair = np.concatenate(([0], np.cumsum(table[:, 1])))[:-1][chosen]
    first_row = np.concatenate(([0], np.cumsum(table[:, 2])))[:-1][chosen]
    is_test = np.array([tasks[i].test_split for i in chosen], dtype=bool)
    if split == "test":
        examples, first_pair = all_pairs - demonstrations, first_pair + demonstrations
    else:
        examples = np.where(is_test, demonstrations, all_pairs)
    opened = CompactSplit(
        metadata,
        grids=_array(directory / GRIDS, np.uint8, 1),
        pairs=_array(directory / PAIRS, np.int32, 2),
        augmentations=_array(directory / AUGMENTATIONS, np.uint8, 2),
        first_pair=first_pair.astype(np.int64),
        group_examples=examples.astype(np.int64),
        first_row=first_row.astype(np.int64),
        group_indices=np.concatenate(([0], np.cumsum(puzzles))).astype(np.int32),
        identifiers_start=listed.puzzle_identifiers_start,
        shifted=split == "train",
        group_weights=_weights(np.array([tasks[i].weight for i in chosen])) if split == "train" else None,
    )
    if opened.pairs.shape != (table[:, 1].sum(), 6) or opened.augmentations.shape != (table[:, 2].sum(), 11):
        raise ValueError(
            f"{directory}: {TASKS}, {PAIRS} and {AUGMENTATIONS} do not fit together: build the data set anew"
        )
    # The kernels read without bounds checks, so what they index is checked here, once.
    p = np.asarray(opened.pairs, dtype=np.int64)
    side = math.isqrt(metadata.seq_len)
    if (
        side * side != metadata.seq_len
        or metadata.num_puzzle_identifiers != opened.identifiers_start + len(opened.augmentations)
        or (p < 0).any()
        or (p[:, [1, 2, 4, 5]] > side).any()
        or max((p[:, 0] + p[:, 1] * p[:, 2]).max(initial=0), (p[:, 3] + p[:, 4] * p[:, 5]).max(initial=0))
        > len(opened.grids)
        or (opened.augmentations[:, 0] >= NUM_DIHEDRAL).any()
        or (np.sort(opened.augmentations[:, 1:], axis=1) != np.arange(NUM_COLOURS)).any()
        or (np.asarray(opened.grids) > 9).any()
    ):
        raise ValueError(f"{directory}: {PAIRS}, {GRIDS} or {AUGMENTATIONS} point outside: build the data set anew")
    return opened


def _weights(weights: np.ndarray) -> np.ndarray | None:
    """The weights, or None where each group is visited once, as everywhere without weights."""
    return None if (weights == 1).all() else weights


def open_tasks(directory: str | Path) -> list[TaskEntry] | None:
    """The tasks in the order of their groups; None for the expanded format, which does not record them."""
    return _open_tasks(Path(directory))[0].tasks if (Path(directory) / TASKS).exists() else None


def _open_tasks(directory: Path) -> tuple[TaskList, np.ndarray]:
    """The task list and, per task, int64 [tasks, 3]: demonstrations, pairs, puzzles."""
    path = directory / TASKS
    try:
        listed = TaskList.model_validate(_json(path))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ValueError(f"{path}: {where}: {problem['msg']}: build the data set anew") from None
    rows = [[task.demonstrations, task.pairs, task.puzzles] for task in listed.tasks]
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    if (table[:, 0] > table[:, 1]).any():
        raise ValueError(f"{path}: a task has more demonstrations than pairs: build the data set anew")
    return listed, table


def _open_expanded(directory: Path, split: str, metadata: SplitMetadata) -> ExpandedSplit:
    folder = directory / split
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("inputs", "labels", "identifiers", "puzzles", "groups", "weights")
    }
    puzzle_base = example_base = 0
    for name in metadata.sets:
        inputs = _array(array_path(folder, name, "inputs"), np.uint8, 2)
        labels = _array(array_path(folder, name, "labels"), np.uint8, 2)
        identifiers = _array(array_path(folder, name, "puzzle_identifiers"), np.int32, 1)
        puzzles = _array(array_path(folder, name, "puzzle_indices"), np.int32, 1)
        groups = _array(array_path(folder, name, "group_indices"), np.int32, 1)
        weights = np.ones(max(0, len(groups) - 1))
        if split == "train" and array_path(folder, name, GROUP_WEIGHTS).exists():
            weights = _array(array_path(folder, name, GROUP_WEIGHTS), np.float64, 1)
        whole = (
            inputs.shape == labels.shape
            and inputs.shape[1] == metadata.seq_len
            and len(puzzles) == len(identifiers) + 1
            and len(groups) >= 1
            and puzzles[0] == groups[0] == 0
            and puzzles[-1] == len(inputs)
            and groups[-1] == len(identifiers)
            and (np.diff(puzzles) >= 0).all()
            and (np.diff(groups) >= 0).all()
            and len(weights) == len(groups) - 1
            and ((weights > 0) & np.isfinite(weights)).all()
            and (len(identifiers) == 0 or 0 <= identifiers.min() <= identifiers.max() < metadata.num_puzzle_identifiers)
        )
        if not whole:
            raise ValueError(f"{folder}: the arrays of the set {name!r} do not fit together: build the data set anew")
        parts["inputs"].append(inputs)
        parts["labels"].append(labels)
        parts["identifiers"].append(identifiers)
        parts["puzzles"].append(puzzles[:-1] + example_base)
        parts["groups"].append(groups[:-1] + puzzle_base)
        parts["weights"].append(weights)
        puzzle_base += len(identifiers)
        example_base += len(inputs)
    return ExpandedSplit(
        metadata,
        parts["inputs"],
        parts["labels"],
        group_indices=np.concatenate([*parts["groups"], [puzzle_base]]),
        puzzle_indices=np.concatenate([*parts["puzzles"], [example_base]]),
        puzzle_identifiers=np.concatenate(parts["identifiers"]),
        group_weights=_weights(np.concatenate(parts["weights"])),
    )


def open_catalog(directory: str | Path) -> PuzzleCatalog:
    """Which task and augmentation each identifier of a data set stands for."""
    directory = Path(directory)
    if not (directory / TASKS).exists():
        names = _json(directory / IDENTIFIERS)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{directory / IDENTIFIERS} is not a list of names: build the data set anew")
        return PuzzleCatalog.from_names(names)
    listed, table = _open_tasks(directory)
    start, puzzles = listed.puzzle_identifiers_start, table[:, 2]
    rows = _array(directory / AUGMENTATIONS, np.uint8, 2)
    if rows.shape != (puzzles.sum(), 1 + NUM_COLOURS):
        raise ValueError(f"{directory}: {TASKS} and {AUGMENTATIONS} do not fit together: build the data set anew")
    rows = np.concatenate([np.zeros((start, 1 + NUM_COLOURS), dtype=np.uint8), rows])
    task_of = np.concatenate([np.full(start, -1), np.repeat(np.arange(len(puzzles)), puzzles)]).astype(np.int32)
    return PuzzleCatalog([task.id for task in listed.tasks], task_of, rows[:, 0], rows[:, 1:])


def open_test_tasks(directory: str | Path) -> dict[str, Task]:
    """Returns the test tasks by id, with their outputs where these are known.  Their subset is not read: it is "".

    Raises:
        DataError: naming the file, and the task in it that is not one.
    """
    path = Path(directory) / TEST_TASKS
    if not path.exists() and (Path(directory) / IDENTIFIERS).exists():
        raise DataError(f"{directory} holds no ARC tasks (no {TEST_TASKS}): set evaluators=[exact]")
    value = _json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path} holds no tasks by id: build the data set anew")
    return {
        task_id: parse_task(task_id, "", task, f"{path}: task {task_id!r}", needs_test=False)
        for task_id, task in value.items()
    }
