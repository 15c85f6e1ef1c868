"""Which puzzles a group has and which examples a puzzle has, by arithmetic: nothing is stored per puzzle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

NO_STARTS = np.empty(0, dtype=np.int64)


class PuzzleLayout(NamedTuple):
    """The puzzles of each group, and the examples of each puzzle.

    group_starts: int64 [G + 1], the first puzzle of each group and the end.
    first_examples: int64 [G + 1], the first example of each group and the end.
    group_examples: int64 [G], the number of examples of each puzzle of a group.
    example_starts: int64 [P + 1], the first example of each puzzle and the end, where puzzles of one group differ in
        their number of examples; else empty.
    visit_sizes: int64 [G], how many of a puzzle's examples a visit takes, at most; empty where every visit takes all.
    """

    group_starts: NDArray[np.int64]
    first_examples: NDArray[np.int64]
    group_examples: NDArray[np.int64]
    example_starts: NDArray[np.int64] = NO_STARTS
    visit_sizes: NDArray[np.int64] = NO_STARTS

    @property
    def num_groups(self) -> int:
        return len(self.group_starts) - 1

    @property
    def num_puzzles(self) -> int:
        return int(self.group_starts[-1])

    @property
    def num_examples(self) -> int:
        return int(self.first_examples[-1])

    @classmethod
    def from_counts(cls, puzzles: NDArray[np.int64], examples: NDArray[np.int64]) -> PuzzleLayout:
        """Makes the layout of groups with so many puzzles [G], each of so many examples [G]."""
        puzzles, examples = (np.asarray(counts, dtype=np.int64) for counts in (puzzles, examples))
        return cls(_starts(puzzles), _starts(puzzles * examples), examples)

    @classmethod
    def from_starts(cls, group_starts: NDArray[np.integer], example_starts: NDArray[np.integer]) -> PuzzleLayout:
        """Makes the layout of groups that start at puzzles [G + 1], and of puzzles that start at examples [P + 1]."""
        groups, starts = (np.array(array, dtype=np.int64) for array in (group_starts, example_starts))
        counts, first_examples = np.diff(starts), starts[groups]
        has_any = groups[1:] > groups[:-1]
        examples = np.zeros(len(groups) - 1, dtype=np.int64)
        examples[has_any] = counts[groups[:-1][has_any]]
        if np.array_equal(np.repeat(examples, np.diff(groups)), counts):
            return cls(groups, first_examples, examples)
        return cls(groups, first_examples, examples, starts)

    @classmethod
    def join(cls, layouts: Sequence[PuzzleLayout]) -> PuzzleLayout:
        """Lays the groups of several layouts one after the other."""
        if len(layouts) == 1:
            return layouts[0]
        group_starts, first_examples = (
            _chain([getattr(layout, name) for layout in layouts]) for name in ("group_starts", "first_examples")
        )
        starts = NO_STARTS
        if any(len(layout.example_starts) for layout in layouts):
            starts = _chain([layout.starts(0, layout.num_puzzles) for layout in layouts])
        counts = np.concatenate([layout.group_examples for layout in layouts])
        sizes = join_sizes([(layout.visit_sizes, layout.num_groups) for layout in layouts])
        return cls(group_starts, first_examples, counts, starts, sizes)

    def groups_of(self, puzzles: NDArray[np.integer]) -> NDArray[np.int64]:
        """Returns the group of each puzzle [N]."""
        return np.searchsorted(self.group_starts, puzzles, side="right") - 1

    def puzzles_of(self, examples: NDArray[np.integer]) -> NDArray[np.int64]:
        """Returns the puzzle of each example [N]."""
        if len(self.example_starts):
            return np.searchsorted(self.example_starts, examples, side="right") - 1
        groups = np.searchsorted(self.first_examples, examples, side="right") - 1
        within = (examples - self.first_examples[groups]) // np.maximum(1, self.group_examples[groups])
        found: NDArray[np.int64] = self.group_starts[groups] + within
        return found

    def examples_of(self, puzzles: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the first example of each puzzle [N], and how many it has."""
        if len(self.example_starts):
            first = self.example_starts[puzzles]
            return first, self.example_starts[puzzles + 1] - first
        groups = self.groups_of(puzzles)
        counts = self.group_examples[groups]
        return self.first_examples[groups] + (puzzles - self.group_starts[groups]) * counts, counts

    def starts(self, first: int, end: int) -> NDArray[np.int64]:
        """Returns the first example of each of the puzzles first..end, and the end of the last: int64 [N + 1]."""
        if first >= end:
            return np.zeros(1, dtype=np.int64)
        begins, counts = self.examples_of(np.arange(first, end))
        return np.append(begins, begins[-1] + counts[-1])

    def first_of_groups(self, count: int) -> NDArray[np.int64]:
        """Returns the first `count` puzzles of each group, all of a group that has fewer, in rising order."""
        taken = np.minimum(np.diff(self.group_starts), count)
        return self.puzzles_in(np.arange(self.num_groups), taken)

    def puzzles_in(self, groups: NDArray[np.int64], counts: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Returns the puzzles of some groups, or the first `counts` [N] of each."""
        counts = np.diff(self.group_starts)[groups] if counts is None else counts
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        puzzles: NDArray[np.int64] = np.repeat(self.group_starts[:-1][groups], counts) + within
        return puzzles


@njit(cache=True, nogil=True, inline="always")
def count_examples(layout, group, puzzle):  # type: ignore[no-untyped-def]
    """Returns the number of examples of a puzzle, compiled."""
    if len(layout.example_starts):
        return layout.example_starts[puzzle + 1] - layout.example_starts[puzzle]
    return layout.group_examples[group]


@njit(cache=True, nogil=True, inline="always")
def count_taken(layout, group, puzzle):  # type: ignore[no-untyped-def]
    """Returns how many of a puzzle's examples a visit takes, compiled."""
    count = count_examples(layout, group, puzzle)
    return min(count, layout.visit_sizes[group]) if len(layout.visit_sizes) else count


@njit(cache=True, nogil=True, inline="always")
def first_example(layout, group, puzzle):  # type: ignore[no-untyped-def]
    """Returns the first example of a puzzle, compiled."""
    if len(layout.example_starts):
        return layout.example_starts[puzzle]
    return layout.first_examples[group] + (puzzle - layout.group_starts[group]) * layout.group_examples[group]


def join_sizes(parts: Sequence[tuple[NDArray[np.int64] | None, int]]) -> NDArray[np.int64]:
    """Returns the visit sizes of several lists of groups, int64 [all groups]; empty if none of them has any.

    Args:
        parts: of each list its visit sizes, None or empty where a visit takes all, and its number of groups.
    """
    given = [(NO_STARTS if sizes is None else sizes, groups) for sizes, groups in parts]
    if not any(len(sizes) for sizes, _ in given):
        return NO_STARTS
    unlimited = np.iinfo(np.int64).max
    return np.concatenate([sizes if len(sizes) else np.full(groups, unlimited) for sizes, groups in given])


def _starts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def _chain(starts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Joins several lists of starts, each with its end, into one."""
    chained = [np.zeros(1, dtype=np.int64)]
    for part in starts:
        chained.append(chained[-1][-1] + part[1:])
    return np.concatenate(chained)
