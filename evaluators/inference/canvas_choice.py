"""On which canvas a test input is predicted, when the size of its output is not known.

It starts on the smallest canvas that its task's demonstrations and itself suggest.  An answer whose grid is not closed
by EOS on that canvas is predicted again on the next larger one, up to the whole canvas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numba
import numpy as np

from dataset.augmentation import TRANSPOSING
from dataset.canvas import Canvas, assign_canvases, next_larger
from dataset.decoding import crop_size
from dataset.encoding import EOS, PAD
from dataset.storage import PuzzleCatalog, Split


def suggested_length(demonstrations: Sequence[tuple[int, int]], given: int) -> int:
    """How long an axis of the output probably is.

    Args:
        demonstrations: the lengths of input and output of each.  given: that of the test input.

    Returns:
        the input's times the ratio that all demonstrations share, else the length that all outputs share, else the
        longest output's.
    """
    ratios = {Fraction(output, length) for length, output in demonstrations}
    if len(ratios) == 1:
        return -(-given * ratios.pop() // 1)
    return max(output for _, output in demonstrations)


def suggested_extent(task: Mapping[str, Any], index: int) -> tuple[int, int]:
    """Height and width that a test pair of a task probably needs, its EOS frame included.

    Args:
        task: demonstrations under `train`, test inputs under `test`; outputs of test pairs are not looked at.
    """
    given = np.shape(task["test"][index]["input"])
    needs = []
    for axis in (0, 1):
        pairs = [(np.shape(pair["input"])[axis], np.shape(pair["output"])[axis]) for pair in task["train"]]
        longest = max(given[axis], suggested_length(pairs, given[axis])) if pairs else MAX
        needs.append(int(longest) + 1)
    return needs[0], needs[1]


MAX = 10**6
"""Longer than any canvas: without a demonstration nothing is suggested."""


class Ladder:
    """The canvases of a run, and where each example of a test split starts.

    Args:
        canvases: small ones first, the last of which is the whole one.
        starts: int8 [N], the index of each example's first canvas; None: all start on the whole one.

    Attributes:
        repeated: how many answers were made again on a larger canvas the last time.
        slowest: seconds of a batch on the slowest canvas, where that has been measured.
    """

    def __init__(self, canvases: Sequence[Canvas], starts: np.ndarray | None = None) -> None:
        self.canvases, self.starts = tuple(canvases), starts
        self.larger = next_larger(canvases)
        self.repeated, self.slowest = 0, 0.0

    @classmethod
    def of(cls, canvases: Sequence[Canvas], split: Split, catalog: PuzzleCatalog, tasks: Mapping[str, Any]) -> Ladder:
        """For the test split of ARC tasks."""
        whole = canvases[-1]
        starts_at = np.asarray(split.puzzle_indices, dtype=np.int64)
        counts = np.diff(starts_at)
        identifiers = np.repeat(np.asarray(split.puzzle_identifiers), counts)
        index = np.arange(split.num_examples) - np.repeat(starts_at[:-1], counts)
        known: dict[tuple[str, int], tuple[int, int]] = {}
        extents = np.empty((split.num_examples, 2), dtype=np.int64)
        for n, (task, test) in enumerate(zip(catalog.task_of[identifiers].tolist(), index.tolist(), strict=True)):
            key = (catalog.task_ids[task], test)
            if key not in known:
                known[key] = suggested_extent(tasks[key[0]], test)
            extents[n] = known[key]
        turned = np.isin(catalog.dihedral[identifiers], TRANSPOSING)
        extents[turned] = extents[turned][:, ::-1]
        return cls(canvases, assign_canvases(np.minimum(extents, whole), canvases))

    def start_of(self, examples: np.ndarray) -> np.ndarray:
        """The index of the canvas that each example starts on."""
        if self.starts is None:
            return np.full(len(examples), len(self.canvases) - 1, dtype=np.int8)
        return self.starts[examples]

    def to_repeat(self, lane: int, tokens: np.ndarray) -> np.ndarray:
        """Which answers [N, cells] on a canvas are to be made again on the next: bool [N]."""
        if self.larger[lane] is None:
            return np.zeros(len(tokens), dtype=bool)
        return ~closed(tokens, self.canvases[lane], self.canvases[-1])

    def on_whole(self, lane: int, tokens: np.ndarray) -> np.ndarray:
        """Canvases [.., cells] of a lane as the top-left part of whole ones, the rest padding."""
        canvas, whole = self.canvases[lane], self.canvases[-1]
        if canvas == whole:
            return tokens
        out = np.full((*tokens.shape[:-1], *whole), PAD, dtype=np.uint8)
        out[..., : canvas.height, : canvas.width] = tokens.reshape(*tokens.shape[:-1], *canvas)
        return out.reshape(*tokens.shape[:-1], whole.cells)


@numba.njit(nogil=True, cache=True)
def _closed(tokens, height, width, most_height, most_width, found):  # type: ignore[no-untyped-def]
    for n in range(len(tokens)):
        h, w = crop_size(tokens[n], height, width)
        whole = h > 0
        if h < height:
            for j in range(w):
                whole &= tokens[n, h * width + j] == EOS
        else:
            whole &= height == most_height
        if w < width:
            for i in range(h):
                whole &= tokens[n, i * width + w] == EOS
        else:
            whole &= width == most_width
        found[n] = whole


def closed(tokens: np.ndarray, canvas: Canvas, whole: Canvas) -> np.ndarray:
    """Whether each canvas [N, cells] shows a grid with its EOS frame, bool [N]: then it ends there, and not because
    the canvas does.  Along an axis on which a grid fills the whole canvas there is no frame to ask for."""
    found = np.empty(len(tokens), dtype=np.bool_)
    _closed(np.ascontiguousarray(tokens), canvas.height, canvas.width, whole.height, whole.width, found)
    return found
