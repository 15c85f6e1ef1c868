"""Selects the canvas on which a test input is predicted, and falls back to a larger one.

The size of the output is not known.  So a test input starts on the smallest canvas that its task's demonstrations and
the input itself suggest.  An answer whose grid is not closed by EOS on that canvas is predicted again on the next
larger canvas, up to the whole one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numba
import numpy as np

from dataset.augmentation import TRANSPOSING
from dataset.canvas import Canvas, assign_canvases, next_larger
from dataset.decoding import crop_size
from dataset.encoding import EOS, PAD
from dataset.storage import PuzzleCatalog, Split
from dataset.tasks import Task

LONGER_THAN_ANY_CANVAS = 10**6
"""The size that is suggested for a task without demonstrations."""


def suggest_length(demonstrations: Sequence[tuple[int, int]], given: int) -> int:
    """Returns how long an axis of the output probably is.

    It is the input's length times the ratio that all demonstrations share.  If they share none it is the length that
    all outputs share, or else the longest output's.

    Args:
        demonstrations: the lengths of input and output of each.
        given: the length of the test input.
    """
    ratios = {Fraction(output, length) for length, output in demonstrations}
    if len(ratios) == 1:
        return -(-given * ratios.pop() // 1)
    return max(output for _, output in demonstrations)


def suggest_size(task: Task, index: int) -> tuple[int, int]:
    """Returns height and width that a test pair probably needs, its EOS frame included.

    Test outputs are not looked at.
    """
    given = task.test[index][0].shape
    sizes = []
    for axis in (0, 1):
        lengths = [(grid.shape[axis], output.shape[axis]) for grid, output in task.train if output is not None]
        probable = suggest_length(lengths, given[axis]) if lengths else LONGER_THAN_ANY_CANVAS
        sizes.append(int(max(given[axis], probable)) + 1)
    return sizes[0], sizes[1]


def suggest_sizes(split: Split, catalog: PuzzleCatalog, tasks: Mapping[str, Task]) -> np.ndarray:
    """Returns `suggest_size` for each example of a test split of ARC tasks, int64 [N, 2]."""
    first_examples = np.asarray(split.puzzle_indices, dtype=np.int64)
    counts = np.diff(first_examples)
    of_puzzles = split.identities(np.arange(split.layout.num_puzzles))
    test_index = np.arange(split.num_examples) - np.repeat(first_examples[:-1], counts)
    known: dict[tuple[int, int], tuple[int, int]] = {}
    sizes = np.empty((split.num_examples, 2), dtype=np.int64)
    pairs = zip(np.repeat(of_puzzles.tasks - 1, counts).tolist(), test_index.tolist(), strict=True)
    for n, (task, index) in enumerate(pairs):
        if (task, index) not in known:
            known[task, index] = suggest_size(tasks[catalog.task_ids[task]], index)
        sizes[n] = known[task, index]
    is_turned = np.repeat(np.isin(of_puzzles.augmentations[:, 0], TRANSPOSING), counts)
    sizes[is_turned] = sizes[is_turned][:, ::-1]
    return sizes


class CanvasFallback:
    """The canvases of a run, on which of them each test example starts, and which one follows.

    A canvas is named by its level, which is its index in `canvases`.

    Args:
        canvases: small ones first; the last one is the data set's whole canvas.
        starts: int8 [N], the level that each example starts on; None: all start on the whole canvas.
    """

    def __init__(self, canvases: Sequence[Canvas], starts: np.ndarray | None = None) -> None:
        self.canvases, self.starts = tuple(canvases), starts
        self.larger = next_larger(canvases)
        """The level that follows each level; None after the last one."""

    @classmethod
    def from_sizes(cls, canvases: Sequence[Canvas], sizes: np.ndarray) -> CanvasFallback:
        """Starts each example on the smallest canvas that holds its suggested size, int [N, 2]."""
        return cls(canvases, assign_canvases(np.minimum(sizes, canvases[-1]), canvases))

    def first_levels(self, examples: np.ndarray) -> np.ndarray:
        """Returns the level that each of some examples starts on, int8 [N]."""
        if self.starts is None:
            return np.full(len(examples), len(self.canvases) - 1, dtype=np.int8)
        return self.starts[examples]

    def is_cut_off(self, level: int, tokens: np.ndarray) -> np.ndarray:
        """Returns which answers [N, cells] on a canvas must be predicted again on the next one, bool [N]."""
        if self.larger[level] is None:
            return np.zeros(len(tokens), dtype=bool)
        return ~is_closed(tokens, self.canvases[level], self.canvases[-1])

    def pad_to_whole(self, level: int, tokens: np.ndarray) -> np.ndarray:
        """Returns canvases [.., cells] of a level as the top-left part of whole ones; the rest is padding."""
        canvas, whole = self.canvases[level], self.canvases[-1]
        if canvas == whole:
            return tokens
        padded = np.full((*tokens.shape[:-1], *whole), PAD, dtype=np.uint8)
        padded[..., : canvas.height, : canvas.width] = tokens.reshape(*tokens.shape[:-1], *canvas)
        return padded.reshape(*tokens.shape[:-1], whole.cells)


@numba.njit(nogil=True, cache=True)
def _find_closed(tokens, height, width, whole_height, whole_width, closed):  # type: ignore[no-untyped-def]
    for n in range(len(tokens)):
        h, w = crop_size(tokens[n], height, width)
        has_frame = h > 0
        if h < height:
            for j in range(w):
                has_frame &= tokens[n, h * width + j] == EOS
        else:
            has_frame &= height == whole_height
        if w < width:
            for i in range(h):
                has_frame &= tokens[n, i * width + w] == EOS
        else:
            has_frame &= width == whole_width
        closed[n] = has_frame


def is_closed(tokens: np.ndarray, canvas: Canvas, whole: Canvas) -> np.ndarray:
    """Returns whether each canvas [N, cells] shows a grid with its EOS frame, bool [N].

    Such a grid ends where the network ended it, not where the canvas ends.  Along an axis on which a grid fills the
    whole canvas there is no frame, and none is required.
    """
    closed = np.empty(len(tokens), dtype=np.bool_)
    _find_closed(np.ascontiguousarray(tokens), canvas.height, canvas.width, whole.height, whole.width, closed)
    return closed
