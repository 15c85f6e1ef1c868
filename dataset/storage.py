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

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numba
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dataset import encoding
from dataset.augmentation import NUM_COLOURS, NUM_DIHEDRAL, Augmentation
from dataset.canvases import Canvas, whole_canvas
from utils import files

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TEST_TASKS = "test_puzzles.json"
TASKS = "tasks.json"
GRIDS = "grids.npy"
PAIRS = "pairs.npy"
AUGMENTATIONS = "augmentations.npy"
IDENTIFIERS = "identifiers.json"
SPLIT_METADATA = "dataset.json"
SPLITS = ("train", "test")
MAX_IDENTIFIERS_START = 10**8
SET = "all"
GROUP_WEIGHTS = "group_weights"
BLANK = "<blank>"
EXPANDED_IS_WHOLE = (
    "canvases other than the whole one need ARC tasks in the compact format: build them with --format compact, or set "
    "canvases=null"
)


def array_path(folder: Path, set_name: str, part: str) -> Path:
    """Where the expanded format keeps an array of a split's set; part: inputs, labels, puzzle_identifiers, .."""
    return folder / f"{set_name}__{part}.npy"


class SplitMetadata(BaseModel):
    """`dataset.json` of a split, as published."""

    model_config = ConfigDict(extra="ignore")

    pad_id: int = encoding.PAD
    ignore_label_id: int | None = encoding.PAD
    blank_identifier_id: int = encoding.BLANK_IDENTIFIER
    vocab_size: int = Field(encoding.VOCAB_SIZE, ge=1)
    seq_len: int = Field(ge=1)
    num_puzzle_identifiers: int = Field(ge=1)
    total_groups: int = Field(ge=0)
    mean_puzzle_examples: float
    total_puzzles: int = Field(ge=0)
    sets: list[Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]]  # they become file names
    row_stride: int | None = Field(default=None, ge=1, description="of positions, where it is not the canvas's width")

    @property
    def canvas(self) -> Canvas:
        """The whole canvas."""
        return whole_canvas(self.seq_len)


class TaskEntry(BaseModel):
    """A task of the compact format: its place in the arrays follows from the counts of those before it."""

    id: str
    subset: str
    test_split: bool
    demonstrations: int = Field(ge=0, lt=2**31)
    pairs: int = Field(ge=0, lt=2**31)
    puzzles: int = Field(ge=0, lt=2**31)
    weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="visits per epoch")


class TaskList(BaseModel):
    """`tasks.json` of the compact format."""

    puzzle_identifiers_start: int = Field(ge=1, le=MAX_IDENTIFIERS_START)
    tasks: list[TaskEntry]


class KnownFile(BaseModel):
    """A file as the manifest has it."""

    model_config = ConfigDict(extra="forbid")

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a data set was made of, so that a checkpoint can say what it was trained on."""

    model_config = ConfigDict(extra="forbid")

    format_version: int
    format: str
    sources: list[str]
    settings: dict[str, Any]
    counts: dict[str, int]
    puzzles: str = Field(description="SHA-256 of which puzzle each identifier stands for")
    task_keys: dict[str, Literal["whole", "demonstrations"]] = Field(
        default_factory=dict, description="which tasks are trained on, whatever their names (dataset.overlap)"
    )
    files: dict[str, KnownFile]

    @property
    def fingerprint(self) -> str:
        """One hash of everything that training reads."""
        lines = [f"{name} {known.sha256}" for name, known in sorted(self.files.items())]
        return hashlib.sha256("\n".join([self.format, *lines]).encode()).hexdigest()


@dataclass
class PuzzleCatalog:
    """Which task and augmentation each identifier stands for.

    task_of: int32 [identifiers], index into task_ids, -1 where blank.  dihedral: uint8 [identifiers].
    colours: uint8 [identifiers, 10].
    """

    task_ids: list[str]
    task_of: np.ndarray
    dihedral: np.ndarray
    colours: np.ndarray

    def __len__(self) -> int:
        return len(self.task_of)

    def lookup(self, identifier: int) -> tuple[str, Augmentation]:
        """Raises ValueError for a blank identifier."""
        if self.task_of[identifier] < 0:
            raise ValueError(f"puzzle identifier {identifier} is blank: it stands for no task")
        colours = tuple(int(c) for c in self.colours[identifier])
        return self.task_ids[self.task_of[identifier]], Augmentation(int(self.dihedral[identifier]), colours)

    def name(self, identifier: int) -> str:
        if self.task_of[identifier] < 0:
            return BLANK
        task_id, augmentation = self.lookup(identifier)
        return augmentation.name(task_id)

    @classmethod
    def from_names(cls, names: list[str]) -> PuzzleCatalog:
        task_index: dict[str, int] = {}
        task_of = np.full(len(names), -1, dtype=np.int32)
        rows = np.zeros((len(names), 1 + NUM_COLOURS), dtype=np.uint8)
        for i, name in enumerate(names):
            if name != BLANK:
                task_id, augmentation = Augmentation.parse(name)
                task_of[i] = task_index.setdefault(task_id, len(task_index))
                rows[i] = (augmentation.dihedral, *augmentation.colours)
        return cls(list(task_index), task_of, rows[:, 0], rows[:, 1:])


class Split:
    """The examples of one split, by number.

    group_indices int [G + 1]: first puzzle of each group; puzzle_indices int [P + 1]: first example of each puzzle;
    puzzle_identifiers int32 [P].  group_weights float64 [G]: visits of each group per epoch; None: one each.
    """

    metadata: SplitMetadata
    group_indices: np.ndarray
    puzzle_indices: np.ndarray
    puzzle_identifiers: np.ndarray
    group_weights: np.ndarray | None = None

    @property
    def num_examples(self) -> int:
        return int(self.puzzle_indices[-1])

    def read(
        self, examples: np.ndarray, visit_seeds: np.ndarray | None = None, canvas: Canvas | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels, uint8 [N, cells] each, of `examples` int64 [N].

        Args:
            visit_seeds: uint64 [N], equal for the examples of one visit of a puzzle: all but one of them are shifted
                at random, as a pure function of the seed.  None: no shifts.  Expanded data keep theirs.
            canvas: the part of the whole canvas to show, which must hold the examples (`extents`).
        """
        raise NotImplementedError

    def extents(self, examples: np.ndarray) -> np.ndarray:
        """Height and width of the canvas that each of `examples` int64 [N] needs, int16 [N, 2].

        Raises:
            ValueError: if the data set's format does not know.
        """
        raise NotImplementedError

    def restricted_to(self, identifiers: np.ndarray) -> Split:
        """The same split with only those groups that hold one of `identifiers`."""
        wanted = np.isin(np.asarray(self.puzzle_identifiers), identifiers)
        return RestrictedSplit(self, np.flatnonzero(_of_groups(self.group_indices, wanted)))

    def first_puzzles(self, count: int) -> Split:
        """The same split with only the first `count` puzzles of each group, the un-augmented one first."""
        return RestrictedSplit(self, np.flatnonzero(self.rounds() < count))

    def rounds(self) -> np.ndarray:
        """The place of each puzzle in its group, int64 [P]: 0 for the un-augmented one."""
        starts = np.asarray(self.group_indices, dtype=np.int64)
        return np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))


def _of_groups(group_indices: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether each puzzle's group holds a wanted puzzle, bool [P]."""
    starts = np.asarray(group_indices)
    totals = np.concatenate(([0], np.cumsum(wanted)))
    return np.repeat(totals[starts[1:]] > totals[starts[:-1]], np.diff(starts))


@dataclass
class CompactSplit(Split):
    """Examples made as they are read."""

    metadata: SplitMetadata
    grids: np.ndarray
    pairs: np.ndarray
    augmentations: np.ndarray
    first_pair: np.ndarray = field(repr=False)  # per group
    group_examples: np.ndarray = field(repr=False)  # examples of each puzzle of a group
    first_row: np.ndarray = field(repr=False)  # first augmentation row of each group
    group_indices: np.ndarray = field(repr=False)
    identifiers_start: int = 1
    shifted: bool = True
    group_weights: np.ndarray | None = field(default=None, repr=False)

    @cached_property
    def puzzle_indices(self) -> np.ndarray:  # type: ignore[override]
        per_puzzle = np.repeat(self.group_examples, np.diff(self.group_indices))
        return np.concatenate(([0], np.cumsum(per_puzzle))).astype(np.int32)

    @cached_property
    def puzzle_identifiers(self) -> np.ndarray:  # type: ignore[override]
        puzzles = np.arange(self.group_indices[-1])
        group = np.searchsorted(self.group_indices, puzzles, side="right") - 1
        rows = self.first_row[group] + puzzles - self.group_indices[group]
        return (rows + self.identifiers_start).astype(np.int32)

    @cached_property
    def _first_example(self) -> np.ndarray:
        return np.asarray(self.puzzle_indices[self.group_indices[:-1]], dtype=np.int64)

    def read(
        self, examples: np.ndarray, visit_seeds: np.ndarray | None = None, canvas: Canvas | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        examples = _checked(examples, self.num_examples)
        whole = self.metadata.canvas
        if canvas is None:
            canvas = whole
        elif len(examples) and (self.extents(examples) > canvas).any():
            raise ValueError(f"an example does not fit a canvas of {canvas}: choose a larger one")
        inputs = np.empty((len(examples), canvas.cells), dtype=np.uint8)
        labels = np.empty_like(inputs)
        seeds = visit_seeds if self.shifted and visit_seeds is not None else np.empty(0, dtype=np.uint64)
        assert len(seeds) in (0, len(examples)), (len(seeds), len(examples))
        encoding.encode_examples(
            self.grids,
            self.pairs,
            self.augmentations,
            self._first_example,
            self.group_examples,
            self.first_pair,
            self.first_row,
            examples,
            seeds,
            whole.height,
            canvas.height,
            canvas.width,
            inputs,
            labels,
        )
        return inputs, labels

    def extents(self, examples: np.ndarray) -> np.ndarray:
        found = np.empty((len(examples), 2), dtype=np.int16)
        encoding.extents_of(
            self.pairs,
            self.augmentations,
            self._first_example,
            self.group_examples,
            self.first_pair,
            self.first_row,
            _checked(examples, self.num_examples),
            self.metadata.canvas.height,
            found,
        )
        return found


@dataclass
class ExpandedSplit(Split):
    """Examples that lie written out; several sets are one after the other."""

    metadata: SplitMetadata
    inputs: list[np.ndarray]
    labels: list[np.ndarray]
    group_indices: np.ndarray
    puzzle_indices: np.ndarray
    puzzle_identifiers: np.ndarray
    group_weights: np.ndarray | None = None

    def read(
        self, examples: np.ndarray, visit_seeds: np.ndarray | None = None, canvas: Canvas | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        if canvas not in (None, self.metadata.canvas):
            raise ValueError(EXPANDED_IS_WHOLE)
        examples = _checked(examples, self.num_examples)
        inputs = np.empty((len(examples), self.metadata.seq_len), dtype=np.uint8)
        labels = np.empty_like(inputs)
        first = 0
        for part_inputs, part_labels in zip(self.inputs, self.labels, strict=True):
            _gather(part_inputs, examples, first, inputs)
            _gather(part_labels, examples, first, labels)
            first += len(part_inputs)
        return inputs, labels

    def extents(self, examples: np.ndarray) -> np.ndarray:
        raise ValueError(EXPANDED_IS_WHOLE)


def _checked(examples: np.ndarray, num_examples: int) -> np.ndarray:
    """The kernels read without bounds checks, so the numbers of examples are checked here."""
    examples = np.asarray(examples, dtype=np.int64)
    if len(examples) and not 0 <= examples.min() <= examples.max() < num_examples:
        raise IndexError(f"examples {examples.min()}..{examples.max()} are not all in 0..{num_examples - 1}")
    return examples


@numba.njit(nogil=True, cache=True)
def _gather(rows, examples, first, out):  # type: ignore[no-untyped-def]
    """Copies those rows that lie in this part, which begins at example `first`; waiting for the disk holds no GIL."""
    for n in range(len(examples)):
        i = examples[n] - first
        if 0 <= i < len(rows):
            out[n] = rows[i]


class RestrictedSplit(Split):
    """Some puzzles of another split, int64 in rising order; groups without any are left out."""

    def __init__(self, base: Split, puzzles: np.ndarray) -> None:
        self.base = base
        group_starts, puzzle_starts = np.asarray(base.group_indices), np.asarray(base.puzzle_indices)
        groups = np.searchsorted(group_starts, puzzles, side="right") - 1
        per_group = np.bincount(groups, minlength=len(group_starts) - 1)
        sizes = puzzle_starts[puzzles + 1] - puzzle_starts[puzzles]
        self.group_indices = np.concatenate(([0], np.cumsum(per_group[per_group > 0]))).astype(np.int32)
        self.puzzle_indices = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
        self.puzzle_identifiers = np.asarray(base.puzzle_identifiers)[puzzles]
        self.group_weights = None if base.group_weights is None else base.group_weights[per_group > 0]
        self.metadata = base.metadata.model_copy(
            update={
                "total_groups": int((per_group > 0).sum()),
                "total_puzzles": len(puzzles),
                "mean_puzzle_examples": float(sizes.mean()) if len(sizes) else 0.0,
            }
        )
        self._shift = puzzle_starts[puzzles] - self.puzzle_indices[:-1]

    def _of_base(self, examples: np.ndarray) -> np.ndarray:
        return examples + self._shift[np.searchsorted(self.puzzle_indices, examples, side="right") - 1]

    def read(
        self, examples: np.ndarray, visit_seeds: np.ndarray | None = None, canvas: Canvas | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.base.read(self._of_base(examples), visit_seeds, canvas)

    def extents(self, examples: np.ndarray) -> np.ndarray:
        return self.base.extents(self._of_base(examples))


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


def fingerprints(
    directory: str | Path, verify: bool = True, progress: Callable[[int, int], None] | None = None
) -> tuple[str, str]:
    """What training reads of a data set, and which puzzle each of its identifiers stands for, each as one hash.

    Args:
        verify: compare every file with its checksum in the manifest.
        progress: told (bytes compared, bytes in all).

    Raises:
        ValueError: if it is no data set, or a file is not what the manifest says.
    """
    directory = Path(directory)
    manifest = open_manifest(directory)
    if manifest is None:  # a published data set
        names = directory / IDENTIFIERS
        if not names.is_file():
            raise ValueError(f"{directory} is not a data set folder (no {MANIFEST}): build_dataset.py makes one")
        sizes = sorted((str(p.relative_to(directory)), p.stat().st_size) for p in directory.glob("*/*.npy"))
        puzzles = "names:" + files.sha256(names)
        return hashlib.sha256(f"{puzzles} {sizes}".encode()).hexdigest(), puzzles
    done, total = 0, sum(known.bytes for known in manifest.files.values())

    def told(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    for name, known in manifest.files.items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != known.bytes:
            raise ValueError(f"{path} has not the size that {MANIFEST} says: build the data set anew")
        if verify and files.sha256(path, told) != known.sha256:
            raise ValueError(f"{path} is damaged (its checksum is not that of {MANIFEST}): build the data set anew")
    return manifest.fingerprint, manifest.puzzles


def open_test_tasks(directory: str | Path) -> dict[str, Any]:
    """The test tasks in Kaggle's layout: {id: {"train": [{"input", "output"}], "test": [..]}}, outputs where known."""
    path = Path(directory) / TEST_TASKS
    if not path.exists() and (Path(directory) / IDENTIFIERS).exists():
        raise ValueError(f"{directory} holds no ARC tasks (no {TEST_TASKS}): set evaluators=[exact]")
    value = _json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no tasks by id: build the data set anew")
    return value


def puzzles_digest(task_ids: Iterable[str], augmentations: Iterable[np.ndarray], start: int) -> str:
    """The hash that `Manifest.puzzles` holds, the same for both formats.

    Args:
        augmentations: of each task, uint8 [puzzles, 11].
        start: the identifier of the first puzzle.
    """
    digest = hashlib.sha256(f"{start}\n".encode())
    for task_id, rows in zip(task_ids, augmentations, strict=True):
        digest.update(f"{len(rows)} {task_id}\n".encode())
        digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()
