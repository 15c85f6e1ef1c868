"""Collects predictions from all ranks on rank 0."""

from __future__ import annotations

import numpy as np

from dataset.storage import Split
from evaluators.inference.canvas_choice import Ladder
from evaluators.inference.engine import Found, Traced
from evaluators.inference.predictions import Predictions, Trace
from utils import collectives, distributed


def in_rounds(split: Split) -> tuple[np.ndarray, int]:
    """All examples, those of the un-augmented puzzles first, then of the first augmentation of each group, and so on:
    int64 [N], and how many the first round has."""
    starts = np.asarray(split.puzzle_indices, dtype=np.int64)
    rounds = np.repeat(split.rounds(), starts[1:] - starts[:-1])
    return np.argsort(rounds, kind="stable"), int((rounds == 0).sum())


def gather_trace(traced: list[Traced], split: Split) -> Trace | None:
    """The traces of the un-augmented examples of all ranks, on rank 0; None elsewhere or if there are none.
    Collective."""
    gathered = collectives.gather_objects_to_main(traced)
    parts = [part for rank in gathered or [] for part in rank]
    if not parts:
        return None
    examples, tokens = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    puzzle = np.searchsorted(split.puzzle_indices, examples, side="right") - 1
    keep = split.rounds()[puzzle] == 0
    index = (examples - split.puzzle_indices[puzzle]).astype(np.int32)
    return Trace(tokens[keep], np.asarray(split.puzzle_identifiers[puzzle], dtype=np.int32)[keep], index[keep])


class _Collected:
    """What was found, each time only what is new gathered to rank 0.  An example that was predicted on several
    canvases has the answers of the largest."""

    def __init__(self, split: Split, ladder: Ladder) -> None:
        self._split, self._ladder = split, ladder
        self._new: list[tuple[np.ndarray, ...]] = []
        self._all: list[tuple[np.ndarray, ...]] = []
        self._again: list[np.ndarray] = []

    def add(self, lane: int, found: Found | None) -> None:
        if found is None or not len(found[0]):
            return
        examples, tokens, q_halt, steps = found
        repeats = self._ladder.to_repeat(lane, tokens)
        # With several answers of an example its last one decides.
        last = np.lexsort((steps, examples))
        last = last[np.append(examples[last][1:] != examples[last][:-1], True)]
        self._again.append(examples[last[repeats[last]]])
        canvas = np.full(len(examples), lane, dtype=np.int8)
        self._new.append((examples, canvas, self._ladder.on_whole(lane, tokens), q_halt, steps, repeats))

    def take_repeats(self, lane: int) -> np.ndarray:
        """The examples of all ranks that are to be predicted again on the next canvas, in order.  Collective."""
        mine = np.concatenate([*self._again, np.empty(0, dtype=np.int64)])
        self._again = []
        if self._ladder.larger[lane] is None:
            return mine[:0]
        return np.sort(np.concatenate(distributed.all_gather_object(mine)))

    def gather(self) -> Predictions | None:
        gathered = collectives.gather_objects_to_main(self._new)
        self._new = []
        if gathered is None:
            return None
        self._all += [found for rank in gathered for found in rank]
        split = self._split
        if not self._all:
            return Predictions.empty(split.metadata.seq_len)
        columns = [np.concatenate(parts) for parts in zip(*self._all, strict=True)]
        # Answers of one example are much alike: side by side they compress.
        order = np.lexsort((columns[4], columns[1], columns[0]))
        examples, canvas, tokens, q_halt, steps, cut = (column[order] for column in columns)
        group = np.cumsum(np.append(0, examples[1:] != examples[:-1]))
        largest = np.zeros(group[-1] + 1, dtype=np.int8)
        np.maximum.at(largest, group, canvas)
        puzzle = np.searchsorted(split.puzzle_indices, examples, side="right") - 1
        # An answer that is cut off by its canvas, and not made again yet, votes only where its input has no other.
        task = np.searchsorted(split.group_indices, puzzle, side="right") - 1
        pair = np.stack((task, examples - split.puzzle_indices[puzzle]), axis=1)
        _, pair_of = np.unique(pair, axis=0, return_inverse=True)
        answered = np.zeros(len(examples), dtype=bool)
        answered[pair_of[~cut]] = True
        keep = (canvas == largest[group]) & ~(cut & answered[pair_of])
        examples, puzzle = examples[keep], puzzle[keep]
        return Predictions(
            tokens=tokens[keep],
            q_halt=q_halt[keep],
            puzzle_identifiers=np.asarray(split.puzzle_identifiers[puzzle], dtype=np.int32),
            test_index=(examples - split.puzzle_indices[puzzle]).astype(np.int32),
            steps=steps[keep],
        )
