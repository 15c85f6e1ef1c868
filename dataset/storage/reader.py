"""Opens a data set, in either of two formats that look alike from outside.

    DATA SET/
        manifest.json                  what it was made of: sources, settings, counts, SHA-256 of each other file
        test_puzzles.json              the test tasks, Kaggle's layout
        train/dataset.json, test/dataset.json

    compact (ours, the default): each grid once, and one row per puzzle that says which augmentation it is
        tasks.json                     task ids, their subsets, how many pairs and puzzles each has, visits per epoch
        grids.npy                      uint8, all cells of all grids
        pairs.npy                      int32 [pairs, 6]: input offset, h, w; output offset, h, w (h = 0: not known)
        augmentations.npy              uint8 [puzzles, 11]: dihedral transform, ten colours

    expanded (the published layout): every example, encoded
        identifiers.json               the name of each identifier
        {train,test}/{set}__inputs.npy, __labels.npy           uint8 [examples, seq_len]
        {train,test}/{set}__puzzle_identifiers.npy             int32 [puzzles]
        {train,test}/{set}__puzzle_indices.npy                 int32 [puzzles + 1], first example of each
        {train,test}/{set}__group_indices.npy                  int32 [groups + 1], first puzzle of each
        train/{set}__group_weights.npy                         float64 [groups], visits per epoch, if not all 1
        train/{set}__visit_sizes.npy                           int64 [groups], examples per visit, if not all

Only this folder knows the file names.  Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from dataset.storage import compact, validation
from dataset.storage.catalog import PuzzleCatalog
from dataset.storage.compact import CompactArrays, CompactSplit
from dataset.storage.puzzle_layout import join_sizes
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
    VISIT_SIZES,
    Manifest,
    SplitMetadata,
    TaskEntry,
    TaskList,
    array_path,
)
from dataset.storage.splits import ExpandedSplit, Split, weights_or_none
from dataset.storage.validation import REMEDY, ExpandedSet
from dataset.tasks import Task, parse_task
from utils.cli import launched_rank
from utils.errors import DataError

M = TypeVar("M", bound=BaseModel)


def open_manifest(directory: str | Path) -> Manifest | None:
    """Reads the manifest; returns None for a published data set, which has none.

    Raises:
        DataError: if it cannot be read, or is of another format version.
    """
    path = Path(directory) / MANIFEST
    if not path.exists():
        return None
    manifest = _read_model(path, Manifest)
    if manifest.format_version != FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {manifest.format_version}, but this program reads {FORMAT_VERSION}: {REMEDY}"
        )
    return manifest


def open_metadata(directory: str | Path, split: str) -> SplitMetadata:
    """Reads the metadata of one split, without its arrays.

    Raises:
        DataError: if the file is missing or damaged.
    """
    path = Path(directory) / split / SPLIT_METADATA
    assert split in SPLITS, split
    if not path.is_file():
        raise DataError(
            f"{directory} is not a data set folder (no {split}/{SPLIT_METADATA}): build_dataset.py makes one"
        )
    return _read_model(path, SplitMetadata)


def open_split(directory: str | Path, split: str) -> Split:
    """Opens one split of a data set of either format, memory-mapped.

    Raises:
        DataError: naming the file that is missing or damaged, or the files that do not fit together.
    """
    directory = Path(directory)
    metadata = open_metadata(directory, split)
    if (directory / TASKS).exists():
        return _open_compact(directory, split, metadata)
    return _open_expanded(directory / split, metadata, split == "train", partial(open_catalog, directory))


def open_tasks(directory: str | Path) -> list[TaskEntry] | None:
    """Returns the tasks in the order of their groups; None for the expanded format, which does not record them.

    Groups of generated pairs come after them.
    """
    directory = Path(directory)
    return _read_task_list(directory).tasks if (directory / TASKS).exists() else None


def open_task_ids(directory: str | Path) -> list[str]:
    """Returns the ids of the tasks of a data set of either format, in the order of their numbers."""
    tasks = open_tasks(directory)
    return open_catalog(directory).task_ids if tasks is None else [task.id for task in tasks]


def open_catalog(directory: str | Path) -> PuzzleCatalog:
    """Returns which task and augmentation each identifier of a data set stands for.

    Raises:
        DataError: naming the file that is missing or damaged, or the files that do not fit together.
    """
    directory = Path(directory)
    if not (directory / TASKS).exists():
        names = _read_json(directory / IDENTIFIERS)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{directory / IDENTIFIERS} is not a list of names: {REMEDY}")
        try:
            return PuzzleCatalog.from_names(names)
        except DataError as error:
            raise DataError(f"{directory / IDENTIFIERS}: {error}") from None
    listed = _read_task_list(directory)
    rows = _map_array(directory / AUGMENTATIONS, np.uint8, 2)
    validation.check_augmentations(directory, listed, rows)
    return compact.make_catalog(listed, rows)


def open_test_tasks(directory: str | Path) -> dict[str, Task]:
    """Returns the test tasks by id, with their outputs where these are known.  Their subset is not recorded: it is "".

    Raises:
        DataError: naming the file, and the task in it that is not one.
    """
    path = Path(directory) / TEST_TASKS
    if not path.exists() and (Path(directory) / IDENTIFIERS).exists():
        raise DataError(f"{directory} has no ARC tasks (no {TEST_TASKS}): set evaluators=[exact]")
    value = _read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a dictionary of tasks by id: {REMEDY}")
    return {
        task_id: parse_task(task_id, "", task, f"{path}: task {task_id!r}", needs_test=False)
        for task_id, task in value.items()
    }


def _open_compact(directory: Path, split: str, metadata: SplitMetadata) -> CompactSplit:
    listed = _read_task_list(directory)
    arrays = CompactArrays(
        grids=_map_array(directory / GRIDS, np.uint8, 1),
        pairs=_map_array(directory / PAIRS, np.int32, 2),
        augmentations=_map_array(directory / AUGMENTATIONS, np.uint8, 2),
    )
    validation.check_compact(directory, arrays, listed, metadata)
    return compact.make_split(arrays, listed, metadata, split)


def _open_expanded(
    folder: Path, metadata: SplitMetadata, weighted: bool, catalog: Callable[[], PuzzleCatalog]
) -> ExpandedSplit:
    if not metadata.sets:
        raise DataError(f"{folder / SPLIT_METADATA} lists no sets: {REMEDY}")
    sets = []
    for name in metadata.sets:
        arrays = _map_expanded_set(folder, name, weighted)
        validation.check_expanded_set(folder, name, arrays, metadata)
        sets.append(arrays)
    if "total_puzzles" not in metadata.model_fields_set:
        metadata = metadata.model_copy(update={"total_puzzles": sum(len(a.puzzle_identifiers) for a in sets)})
    return _join_sets(sets, metadata, catalog)


def _map_expanded_set(folder: Path, name: str, weighted: bool) -> ExpandedSet:
    def indices(part: str) -> np.ndarray:
        return _map_array(array_path(folder, name, part), np.int32, 1, any_integer=True)

    groups = indices("group_indices")
    weights = np.ones(max(0, len(groups) - 1))
    if weighted and array_path(folder, name, GROUP_WEIGHTS).exists():
        weights = _map_array(array_path(folder, name, GROUP_WEIGHTS), np.float64, 1)
    visit_sizes = None
    if weighted and array_path(folder, name, VISIT_SIZES).exists():
        visit_sizes = _map_array(array_path(folder, name, VISIT_SIZES), np.int64, 1)
    inputs, labels = (
        _map_array(array_path(folder, name, part), np.uint8, 2, any_integer=True) for part in ("inputs", "labels")
    )
    for part, tokens in (("inputs", inputs), ("labels", labels)):
        if tokens.dtype != np.uint8 and launched_rank() == 0:
            print(f"{array_path(folder, name, part)} has the type {tokens.dtype}: its tokens are read as uint8")
            break
    return ExpandedSet(
        inputs=inputs,
        labels=labels,
        puzzle_identifiers=indices("puzzle_identifiers"),
        puzzle_indices=indices("puzzle_indices"),
        group_indices=groups,
        group_weights=weights,
        visit_sizes=visit_sizes,
    )


def _join_sets(sets: list[ExpandedSet], metadata: SplitMetadata, catalog: Callable[[], PuzzleCatalog]) -> ExpandedSplit:
    """Makes one split of several sets: the numbers of puzzles and examples run through all of them."""
    first_puzzles = np.cumsum([0, *(len(arrays.puzzle_identifiers) for arrays in sets)])
    first_examples = np.cumsum([0, *(len(arrays.inputs) for arrays in sets)])
    return ExpandedSplit(
        metadata,
        inputs=[arrays.inputs for arrays in sets],
        labels=[arrays.labels for arrays in sets],
        group_indices=np.concatenate(
            [*(a.group_indices[:-1] + first for a, first in zip(sets, first_puzzles, strict=False)), first_puzzles[-1:]]
        ),
        puzzle_indices=np.concatenate(
            [
                *(a.puzzle_indices[:-1] + first for a, first in zip(sets, first_examples, strict=False)),
                first_examples[-1:],
            ]
        ),
        puzzle_identifiers=np.concatenate([arrays.puzzle_identifiers for arrays in sets]),
        group_weights=weights_or_none(np.concatenate([arrays.group_weights for arrays in sets])),
        visit_sizes=join_sizes([(arrays.visit_sizes, len(arrays.group_indices) - 1) for arrays in sets]),
        open_catalog=catalog,
    )


def _read_task_list(directory: Path) -> TaskList:
    listed = _read_model(directory / TASKS, TaskList)
    validation.check_task_list(directory, listed)
    return listed


def _read_model(path: Path, model: type[M]) -> M:
    """Reads a JSON document.  An error names the file, the field and what is wrong with it."""
    try:
        return model.model_validate(_read_json(path))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise DataError(f"{path}: {field}: {problem['msg']}: {REMEDY}") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path.parent} is not a data set folder (no {path.name}): build one with build_dataset.py"
        ) from None
    except (OSError, ValueError, RecursionError) as error:  # not JSON, not UTF-8, or a number of too many digits
        raise DataError(f"{path} cannot be read ({error}): {REMEDY}") from None


def _map_array(path: Path, dtype: type, ndim: int, any_integer: bool = False) -> np.ndarray:
    """Maps a .npy file into memory; an error says what it is instead of an array of `dtype` with `ndim` axes.

    Args:
        any_integer: accept integers of other widths, if all of them fit into `dtype`.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {REMEDY}") from None
    except Exception as error:  # NumPy's reader of headers raises many kinds
        raise DataError(f"{path} is not a plain array ({error}): {REMEDY}") from None
    wider = any_integer and array.dtype != dtype and np.issubdtype(array.dtype, np.integer)
    if (array.dtype != dtype and not wider) or array.ndim != ndim:
        raise DataError(
            f"{path} has the type {array.dtype} and {array.ndim} axes, not {np.dtype(dtype)} and {ndim}: {REMEDY}"
        )
    if wider:
        validation.check_range(path, array, dtype)
        array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
        return array.astype(dtype) if ndim == 1 else array  # tokens may be large: they stay in the file
    return array
