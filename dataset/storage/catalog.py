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

    task_of: int32 [identifiers], index into task_ids, -1 where the identifier is blank.
    dihedral: uint8 [identifiers].
    colours: uint8 [identifiers, 10].
    """

    task_ids: list[str]
    task_of: np.ndarray
    dihedral: np.ndarray
    colours: np.ndarray

    def __len__(self) -> int:
        return len(self.task_of)

    def lookup(self, identifier: int) -> tuple[str, Augmentation]:
        """Returns the task and the augmentation.

        Raises:
            DataError: if the identifier is blank, or there is no such identifier.
        """
        self._check_exists(identifier)
        if self.task_of[identifier] < 0:
            raise DataError(
                f"puzzle identifier {identifier} is blank, it stands for no task: use files that were made of this "
                "data set"
            )
        colours = tuple(int(c) for c in self.colours[identifier])
        return self.task_ids[self.task_of[identifier]], Augmentation(int(self.dihedral[identifier]), colours)

    def name(self, identifier: int) -> str:
        """Returns the puzzle's name, as `identifiers.json` of the expanded format lists it.

        Raises:
            DataError: if there is no such identifier.
        """
        self._check_exists(identifier)
        if self.task_of[identifier] < 0:
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
        return cls(list(task_index), task_of, rows[:, 0], rows[:, 1:])
