"""A split with more puzzles than are stored: further augmentations of its tasks, by number as the stored ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dataset.canvas import Canvas
from dataset.storage import PuzzleIdentities, PuzzleLayout, PuzzleNames, Split


class DrawnSplit(Split):
    """The puzzles of another split, and after those of each group more augmentations of it.

    A drawn puzzle has the blank identifier, as one of `fresh_augmentations`, since no table has a row for it.  Such a
    split is made for predictions, not for training: it tells no sizes of canvases.

    Args:
        base: of the compact format; all puzzles of a group are augmentations of the first, the un-augmented one.
        drawn: for each group uint8 [n, 11], the augmentations to add.

    Raises:
        SettingError: if the format of `base` stores no grids.
    """

    def __init__(self, base: Split, drawn: Sequence[NDArray[np.uint8]]) -> None:
        base.check_takes_augmentations()
        self._base, starts = base, base.layout.group_starts
        self._stored = np.diff(starts)
        more = np.array([len(rows) for rows in drawn], dtype=np.int64)
        assert len(more) == len(self._stored), (len(more), len(self._stored))
        assert self._stored.all(), "a group has no puzzle to augment"
        self._first_drawn = np.cumsum(more) - more
        self._drawn = np.concatenate([np.empty((0, 11), dtype=np.uint8), *drawn])
        _, examples = base.layout.examples_of(starts[:-1])
        self.layout = PuzzleLayout.from_counts(self._stored + more, examples)
        self.group_weights, self.num_tasks = base.group_weights, base.num_tasks
        self.metadata = base.metadata.model_copy(
            update={
                "total_puzzles": self.layout.num_puzzles,
                "mean_puzzle_examples": self.layout.num_examples / max(1, self.layout.num_puzzles),
            }
        )

    def _in_base(self, puzzles: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the puzzle of the base that each puzzle [N] is, or its group's un-augmented one; and its row among
        the drawn ones, -1 for a stored one."""
        groups = self.layout.groups_of(puzzles)
        within = puzzles - self.layout.group_starts[groups]
        beyond = within - self._stored[groups]
        rows = np.where(beyond >= 0, self._first_drawn[groups] + beyond, -1)
        return self._base.layout.group_starts[groups] + np.where(beyond < 0, within, 0), rows

    def _examples_in_base(self, examples: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the example of the base whose grids each example [N] has, and its puzzle."""
        puzzles = self.layout.puzzles_of(examples)
        first_of_base, _ = self._base.layout.examples_of(self._in_base(puzzles)[0])
        return first_of_base + examples - self.layout.examples_of(puzzles)[0], puzzles

    def identifiers_of(self, puzzles: np.ndarray) -> np.ndarray:
        of_base, rows = self._in_base(puzzles)
        blank = np.int32(self.metadata.blank_identifier_id)
        return np.where(rows < 0, self._base.identifiers_of(of_base), blank).astype(np.int32)

    def identities(self, puzzles: np.ndarray) -> PuzzleIdentities:
        of_base, rows = self._in_base(puzzles)
        tasks, augmentations = self._base.identities(of_base)
        return PuzzleIdentities(tasks, self._with_drawn(augmentations, rows))

    def names_of(self, puzzles: np.ndarray) -> PuzzleNames:
        of_base, rows = self._in_base(puzzles)
        nothing = np.zeros((len(rows), self._drawn.shape[1]), dtype=np.uint8)
        return PuzzleNames(self._base.identifiers_of(of_base), self._with_drawn(nothing, rows))

    def _with_drawn(self, augmentations: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns augmentations [N, 11] with those of the drawn puzzles (`_in_base`) in their places."""
        placed, is_drawn = np.array(augmentations), rows >= 0
        placed[is_drawn] = self._drawn[rows[is_drawn]]
        return placed

    def read(
        self,
        examples: np.ndarray,
        visit_seeds: np.ndarray | None = None,
        canvas: Canvas | None = None,
        augmentations: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodes the examples; `Split.read` lists arguments, shapes and errors."""
        of_base, puzzles = self._examples_in_base(np.asarray(examples, dtype=np.int64))
        if augmentations is None:
            augmentations = self.identities(puzzles).augmentations
        return self._base.read(of_base, visit_seeds, canvas, augmentations)
