"""Draws one pair of a puzzle under augmentations, on the canvases that the network reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dataset.augmentation import IDENTITY_ROW, Augmentation
from dataset.encoding import ExampleIndex, encode_examples
from dataset.sampling.fresh_augmentations import draw_augmentations
from docs.figures.drawing.style import (
    CANVAS_EDGE,
    CELLS,
    EDGE,
    MARGIN,
    OUTLINE,
    QUIET,
    WIDTH,
    draw_heading,
    new_drawing,
)
from docs.figures.drawing.svg import GREY, INK, Drawing
from docs.figures.structure.imports import ROOT
from evaluators.report.data_set import SIGNS

PUZZLE = ROOT / "examples" / "mirror.json"
PANELS, COLUMNS = 6, 3
SIDE, WHOLE = 11, 30
"""Of the canvas that is drawn, the top left part of the whole one."""

CELL, GRID_CELL = 9.0, 18.0
TURNS = (
    *("as it is", "turned by 90°", "turned by 180°", "turned by 270°"),
    *("flipped left to right", "flipped top to bottom", "transposed", "transposed the other way"),
)
"""What each dihedral transform does, counter-clockwise."""


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the last demonstration of a puzzle's file, as grids."""
    last = json.loads(path.read_text(encoding="utf-8"))["train"][-1]
    return np.array(last["input"], np.uint8), np.array(last["output"], np.uint8)


def choose_augmentations(count: int = PANELS) -> np.ndarray:
    """Returns the identity, then the first drawn ones whose dihedral transforms differ, uint8 [count, 11]."""
    chosen = {0: IDENTITY_ROW}
    for row in draw_augmentations(np.arange(1000, dtype=np.uint64)):
        if len(chosen) < count:
            chosen.setdefault(int(row[0]), row)
    return np.stack(list(chosen.values()))


def encode_pair(pair: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the canvases of a pair under each augmentation, as tokens uint8 [N, SIDE, SIDE], shifted as in training.

    Each augmentation is a puzzle of two examples, of which one visit leaves one where it is; the second is drawn.
    """
    (h, w), (H, W), count = pair[0].shape, pair[1].shape, len(rows)
    one = [0, h, w, pair[0].size, H, W]
    index = ExampleIndex(
        pairs=np.array([one, one], np.int32),
        augmentations=rows,
        first_example=np.array([0]),
        group_examples=np.array([2]),
        first_pair=np.array([0]),
        first_row=np.array([0]),
    )
    inputs, labels = np.zeros((2, count, SIDE, SIDE), np.uint8)
    seeds = np.arange(1, count + 1, dtype=np.uint64)
    cells = np.concatenate([grid.reshape(-1) for grid in pair])
    drawn = np.empty((0, 11), np.uint8)
    encode_examples(cells, index, 2 * np.arange(count) + 1, seeds, drawn, WHOLE, inputs, labels)
    return inputs, labels


def draw_augmented(path: Path = PUZZLE) -> str:
    """Returns the drawing as SVG."""
    drawing = new_drawing()
    pair = read_pair(path)
    rows = choose_augmentations()
    draw_heading(drawing, 40, "One task, many puzzles", "each augmentation is a puzzle with a row of its own")
    bottom = _draw_pair(drawing, pair, 62)
    inputs, labels = encode_pair(pair, rows)
    width = (WIDTH - 2 * MARGIN - 16 * (COLUMNS - 1)) / COLUMNS
    height = 58 + SIDE * CELL + 16
    for i, row in enumerate(rows):
        x = MARGIN + i % COLUMNS * (width + 16)
        y = bottom + 16 + i // COLUMNS * (height + 14)
        drawing.box(x, y, width, height, QUIET, OUTLINE)
        _draw_panel(drawing, x, y, width, Augmentation(int(row[0]), tuple(map(int, row[1:]))), (inputs[i], labels[i]))
    bottom += 16 + -(-PANELS // COLUMNS) * (height + 14) + 14
    _draw_legend(drawing, bottom)
    return drawing.to_svg(bottom + 46, "One pair of grids under six augmentations, on canvases")


def _draw_pair(drawing: Drawing, pair: tuple[np.ndarray, np.ndarray], y: float) -> float:
    height = max(len(grid) for grid in pair) * GRID_CELL
    x = MARGIN
    for i, grid in enumerate(pair):
        signs = ["".join(map(str, row)) for row in grid.tolist()]
        if i:
            drawing.arrow((x + 8, y + height / 2), (x + 34, y + height / 2))
            x += 44
        drawing.cells(x, y, signs, GRID_CELL, CELLS, EDGE)
        x += len(signs[0]) * GRID_CELL
    x += 28
    drawing.text(x, y + 16, "A demonstration pair. Turned, reflected or recoloured, it shows the same rule.", 14, INK)
    drawing.text(x, y + 37, "The network sees each form on a canvas, moved to a place drawn at random.", 14, GREY)
    return y + height


def _draw_panel(
    drawing: Drawing, x: float, y: float, width: float, augmentation: Augmentation, canvases: tuple[np.ndarray, ...]
) -> None:
    is_recoloured = augmentation.colours != Augmentation().colours
    drawing.text(x + 12, y + 23, TURNS[augmentation.dihedral], 14, INK, bold=True)
    colours = "".join(map(str, augmentation.colours))
    drawing.text(
        x + 12, y + 42, f"0123456789 becomes {colours}" if is_recoloured else "colours as they are", 12.5, GREY
    )
    side = SIDE * CELL
    gap = width - 2 * side - 2 * 12
    for i, canvas in enumerate(canvases):
        signs = ["".join(SIGNS[token] for token in row) for row in canvas.tolist()]
        drawing.cells(x + 12 + i * (side + gap), y + 56, signs, CELL, CELLS, CANVAS_EDGE)
    middle = y + 56 + side / 2
    drawing.arrow((x + 12 + side + 4, middle), (x + 12 + side + gap - 3, middle))


def _draw_legend(drawing: Drawing, y: float) -> None:
    x = MARGIN
    for sign, words in (("e", "EOS: the edge of the grid"), (".", "PAD: empty canvas")):
        drawing.cells(x, y - 11, [sign], 14, CELLS, CANVAS_EDGE)
        drawing.text(x + 22, y, words, 14, INK)
        x += 230
    words = "An answer is turned and coloured back before it counts as a vote."
    drawing.text(MARGIN, y + 24, words, 14, INK)
    drawing.text(x, y, f"Drawn: {SIDE} x {SIDE} of the canvas of {WHOLE} x {WHOLE}.", 14, GREY)
