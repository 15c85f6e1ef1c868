"""Names the puzzles of a data set: which task and augmentation each identifier stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataset.augmentation import NUM_COLOURS, Augmentation
from dataset.storage.schema import BLANK
from utils.errors import DataError


@dataclass
class PuzzleCatalog:
    """Which task and augmentation each identifier stands for.

    run_starts: int64 [R + 1], the first identifier of each run of identifiers of one task, and the end of the last.
    run_tasks: int32 [R], the index of each run's task in `task_ids`, -1 where the identifiers are blank.
    augmentations: uint8 [identifiers, 11] from identifier `first` on, dihedral transform and ten colours; memory-mapped
        for a compact data set.
    """

    task_ids: list[str]
    run_starts: np.ndarray
    run_tasks: np.ndarray
    augmentations: np.ndarray
    first: int = 0

    def __len__(self) -> int:
        return int(self.run_starts[-1])

    def tasks_of(self, identifiers: np.ndarray) -> np.ndarray:
        """Returns the index in `task_ids` of each identifier's task, int32 [N]; -1 where it is blank."""
        tasks: np.ndarray = self.run_tasks[np.searchsorted(self.run_starts, identifiers, side="right") - 1]
        return tasks

    def augmentations_of(self, identifiers: np.ndarray) -> np.ndarray:
        """Returns the augmentation of each identifier, uint8 [N, 11]; zeros where it is blank."""
        rows = np.zeros((len(identifiers), 1 + NUM_COLOURS), dtype=np.uint8)
        known = self.tasks_of(identifiers) >= 0
        rows[known] = self.augmentations[np.asarray(identifiers)[known] - self.first]
        return rows

    def identifiers_of(self, task_id: str, augmentation: Augmentation | None = None) -> np.ndarray:
        """Returns the identifiers of a task, or those of its puzzles with an augmentation: int64 [N]."""
        if task_id not in self.task_ids:
            return np.empty(0, dtype=np.int64)
        runs = np.flatnonzero(self.run_tasks == self.task_ids.index(task_id))
        found = np.concatenate([np.arange(*self.run_starts[run : run + 2]) for run in runs])
        if augmentation is None:
            return found
        row = np.array([augmentation.dihedral, *augmentation.colours], dtype=np.uint8)
        return found[(self.augmentations_of(found) == row).all(1)]

    def lookup(self, identifier: int) -> tuple[str, Augmentation]:
        """Returns the task and the augmentation.

        Raises:
            DataError: if the identifier is blank, or there is no such identifier.
        """
        self._check_exists(identifier)
        (task,), (row,) = self.tasks_of(np.array([identifier])), self.augmentations_of(np.array([identifier]))
        if task < 0:
            raise DataError(
                f"puzzle identifier {identifier} is blank, it stands for no task: use files that were made of this "
                "data set"
            )
        return self.task_ids[task], Augmentation(int(row[0]), tuple(int(colour) for colour in row[1:]))

    def name(self, identifier: int) -> str:
        """Returns the puzzle's name, as `identifiers.json` of the expanded format lists it.

        Raises:
            DataError: if there is no such identifier.
        """
        self._check_exists(identifier)
        if self.tasks_of(np.array([identifier]))[0] < 0:
            return BLANK
        task_id, augmentation = self.lookup(identifier)
        return augmentation.name(task_id)

    def _check_exists(self, identifier: int) -> None:
        if not 0 <= identifier < len(self):
            raise DataError(
                f"puzzle identifier {identifier} does not exist, the data set names {len(self)}: use files that were "
                "made of this data set"
            )

    @classmethod
    def from_names(cls, names: list[str]) -> PuzzleCatalog:
        """Reads the names of all identifiers, in order.

        Raises:
            DataError: for the first one that is not a puzzle's name.
        """
        task_index: dict[str, int] = {}
        task_of = np.full(len(names), -1, dtype=np.int32)
        rows = np.zeros((len(names), 1 + NUM_COLOURS), dtype=np.uint8)
        for i, name in enumerate(names):
            if name != BLANK:
                task_id, augmentation = Augmentation.parse(name)
                task_of[i] = task_index.setdefault(task_id, len(task_index))
                rows[i] = (augmentation.dihedral, *augmentation.colours)
        firsts = np.flatnonzero(np.append(True, task_of[1:] != task_of[:-1])) if len(names) else np.empty(0, np.int64)
        return cls(list(task_index), np.append(firsts, len(names)).astype(np.int64), task_of[firsts], rows)
