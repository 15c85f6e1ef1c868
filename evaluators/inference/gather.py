"""Collects the predictions of all ranks on rank 0."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dataset.storage import Split
from evaluators.inference.canvas_choice import CanvasFallback
from evaluators.inference.engine import PredictionBatch, TraceBatch
from evaluators.inference.predictions import Predictions, PredictionSnapshot, Trace
from utils import collectives, distributed


def order_in_rounds(split: Split) -> tuple[np.ndarray, int]:
    """Orders the examples: those of un-augmented puzzles, then those of each group's first augmentation, and so on.

    Returns:
        int64 [N], the examples in this order; how many of them belong to un-augmented puzzles.
    """
    starts = np.asarray(split.puzzle_indices, dtype=np.int64)
    rounds = np.repeat(split.rounds(), starts[1:] - starts[:-1])
    return np.argsort(rounds, kind="stable"), int((rounds == 0).sum())


class _CollectedRows(NamedTuple):
    """Answers on whole canvases.

    examples: int64 [N].  level: int8 [N], the canvas that each was predicted on.  tokens, q_halt, steps: as of
    `PredictionBatch`, and so is lm_loss.  is_cut_off: bool [N], whether its canvas was too small for the answer.
    """

    examples: np.ndarray
    level: np.ndarray
    tokens: np.ndarray
    q_halt: np.ndarray
    steps: np.ndarray
    lm_loss: np.ndarray
    is_cut_off: np.ndarray

    def rows(self, chosen: np.ndarray) -> _CollectedRows:
        return _CollectedRows(*(column[chosen] for column in self))


class PredictionCollector:
    """Keeps the answers of this rank until `snapshot` sends them to rank 0, which keeps those of all ranks."""

    def __init__(self, split: Split, fallback: CanvasFallback) -> None:
        self._split, self._fallback = split, fallback
        self._new_rows: list[_CollectedRows] = []
        self._new_traces: list[TraceBatch] = []
        self._all_rows: list[_CollectedRows] = []
        self._all_traces: list[TraceBatch] = []
        self._to_repeat: list[np.ndarray] = []

    def add(self, level: int, batch: PredictionBatch | None) -> None:
        """Adds answers that were made on the canvas of a level."""
        if batch is None or not len(batch.examples):
            return
        is_cut_off = self._fallback.is_cut_off(level, batch.tokens)
        # An example with answers after several steps is repeated if its last answer is cut off.
        order = np.lexsort((batch.steps, batch.examples))
        is_last = np.append(batch.examples[order][1:] != batch.examples[order][:-1], True)
        last = order[is_last]
        self._to_repeat.append(batch.examples[last[is_cut_off[last]]])
        self._new_rows.append(
            _CollectedRows(
                examples=batch.examples,
                level=np.full(len(batch.examples), level, dtype=np.int8),
                tokens=self._fallback.pad_to_whole(level, batch.tokens),
                q_halt=batch.q_halt,
                steps=batch.steps,
                lm_loss=batch.lm_loss,
                is_cut_off=is_cut_off,
            )
        )

    def take_repeats(self, level: int) -> np.ndarray:
        """Returns the examples of all ranks that must be predicted again on the next canvas, in order.  Collective."""
        mine = np.concatenate([*self._to_repeat, np.empty(0, dtype=np.int64)])
        self._to_repeat = []
        if self._fallback.larger[level] is None:
            return mine[:0]
        return np.sort(np.concatenate(distributed.all_gather_object(mine)))

    def add_traces(self, level: int, traces: list[TraceBatch], repeats: np.ndarray) -> None:
        """Adds the traces of the examples that are not predicted again."""
        for trace in traces:
            keep = ~np.isin(trace.examples, repeats)
            self._new_traces.append(
                TraceBatch(trace.examples[keep], self._fallback.pad_to_whole(level, trace.tokens[keep]))
            )

    def snapshot(self, repeated: int | None, is_final: bool) -> PredictionSnapshot | None:
        """Sends what is new to rank 0.  Returns all that has been predicted there, None elsewhere.  Collective.

        Args:
            repeated, is_final: see `PredictionSnapshot`.
        """
        gathered = collectives.gather_objects_to_main((self._new_rows, self._new_traces))
        self._new_rows, self._new_traces = [], []
        if gathered is None:
            return None
        for rows, traces in gathered:
            self._all_rows += rows
            self._all_traces += traces
        trace = _join_traces(self._all_traces, self._split)
        if not self._all_rows:
            empty = Predictions.empty(self._split.metadata.seq_len)
            return PredictionSnapshot(empty, np.empty(0, dtype=np.int64), trace, repeated, is_final)
        rows = _select_answers(_join_rows(self._all_rows), self._split)
        puzzle, test_index = _locate(rows.examples, self._split)
        names = self._split.names_of(puzzle)
        predictions = Predictions(
            tokens=rows.tokens,
            q_halt=rows.q_halt,
            puzzle_identifiers=np.asarray(names.identifiers, dtype=np.int32),
            test_index=test_index,
            steps=rows.steps,
            augmentations=names.drawn,
        )
        return PredictionSnapshot(predictions, rows.examples, trace, repeated, is_final, rows.lm_loss)


def _locate(examples: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns the puzzle of each example, int64 [N], and which of its test inputs it is, int32 [N]."""
    puzzle = np.searchsorted(split.puzzle_indices, examples, side="right") - 1
    return puzzle, (examples - split.puzzle_indices[puzzle]).astype(np.int32)


def _join_rows(parts: list[_CollectedRows]) -> _CollectedRows:
    """Returns all rows in order of example, canvas and step: similar canvases side by side compress well."""
    rows = _CollectedRows(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return rows.rows(np.lexsort((rows.steps, rows.level, rows.examples)))


def _select_answers(rows: _CollectedRows, split: Split) -> _CollectedRows:
    """Returns the rows that vote: of each example those on its largest canvas.

    An answer that its canvas has cut off, and that has not been repeated yet, votes only if its test input has no
    other answer.

    Args:
        rows: in the order of `_join_rows`.
    """
    example_of = np.cumsum(np.append(0, rows.examples[1:] != rows.examples[:-1]))
    largest = np.zeros(example_of[-1] + 1, dtype=np.int8)
    np.maximum.at(largest, example_of, rows.level)

    puzzle, test_index = _locate(rows.examples, split)
    task = np.searchsorted(split.group_indices, puzzle, side="right") - 1
    _, input_of = np.unique(np.stack((task, test_index), axis=1), axis=0, return_inverse=True)
    is_answered = np.zeros(len(rows.examples), dtype=bool)
    is_answered[input_of[~rows.is_cut_off]] = True
    return rows.rows((rows.level == largest[example_of]) & ~(rows.is_cut_off & is_answered[input_of]))


def _join_traces(parts: list[TraceBatch], split: Split) -> Trace | None:
    if not parts:
        return None
    examples, tokens = (np.concatenate(column) for column in zip(*parts, strict=True))
    puzzle, test_index = _locate(examples, split)
    return Trace(tokens, np.asarray(split.names_of(puzzle).identifiers, dtype=np.int32), test_index)
