"""Draws the layers: a box per folder with its subfolders and files, and arrows to what it imports."""

from __future__ import annotations

from typing import NamedTuple

from docs.figures.drawing.style import (
    BETWEEN,
    COLORS,
    GAP,
    LINE_HEIGHT,
    MARGIN,
    MOST_IN_A_ROW,
    PAD,
    PART_GAP,
    PART_PAD,
    SMALL,
    TORCH,
    WIDTH,
    draw_heading,
)
from docs.figures.drawing.svg import GREY, Drawing, text_width, wrapped
from docs.figures.structure.imports import SCRIPTS, Layer, direct_imports, rows_of_layers


def draw_layers(drawing: Drawing, layers: dict[str, Layer], y: float) -> float:
    """Draws a row of boxes per level and the arrows between them; returns where they end."""
    draw_heading(
        drawing, y, "Layers", "arrows lead to what a folder imports; those that follow from others are left out"
    )
    _legend(drawing, y)
    y += 20
    places: dict[str, tuple[float, float, float]] = {}  # left, width, bottom
    arrows = direct_imports(layers)
    for row in rows_of_layers(layers):
        boxes = _widths(row, layers)
        height = max(_height(layers[name], width) for name, _, width in boxes)
        for name, left, width in boxes:
            _draw_layer(drawing, layers[name], left, y, width, height)
            for importer in places:
                if (importer, name) in arrows:
                    _arrow_down(drawing, places[importer], (left, width), y)
            places[name] = (left, width, y + height)
        y += height + GAP
    return y - GAP


def _legend(drawing: Drawing, y: float) -> None:
    words = "imports PyTorch"
    right = WIDTH - MARGIN - text_width(words, SMALL)
    drawing.dot(right - 9, y - 4, TORCH)
    drawing.text(right, y, words, size=SMALL, color=GREY)


def _widths(row: list[str], layers: dict[str, Layer]) -> list[tuple[str, float, float]]:
    """Returns (name, left, width) of each box of a row; a folder with subfolders gets twice the width."""
    weights = [2.8 if layers[name].parts else 1.0 for name in row]
    room = WIDTH - 2 * MARGIN - GAP * (len(row) - 1)
    boxes, left = [], MARGIN
    for name, weight in zip(row, weights, strict=True):
        width = room * weight / sum(weights)
        boxes.append((name, left, width))
        left += width + GAP
    return boxes


def _arrow_down(drawing: Drawing, above: tuple[float, float, float], below: tuple[float, float], y: float) -> None:
    left, right = max(above[0], below[0]), min(above[0] + above[1], below[0] + below[1])
    middle = (left + right) / 2
    drawing.arrow((middle, above[2] + 2), (middle, y - 3))


def _lines_of(layer: Layer, width: float) -> tuple[list[str], list[str]]:
    """Returns the sentence and the names of the folder's own files, in lines."""
    inner = width - 2 * PAD
    suffix = ".py" if layer.name == SCRIPTS else ""
    return (
        wrapped(layer.sentence.split(), " ", inner, SMALL),
        wrapped([name + suffix for name in layer.files], BETWEEN, inner, SMALL),
    )


class Part(NamedTuple):
    """A subfolder as it is drawn: the width of its box, its files' names in lines, and what they leave of the width."""

    name: str
    width: float
    lines: list[str]
    room_left: float


def _part_rows(layer: Layer, width: float) -> list[list[Part]]:
    """Returns the subfolders in rows of at most `MOST_IN_A_ROW`.  Each gets the width that its longest name needs, and
    an equal part of what is left."""
    names = sorted(layer.parts)
    found: list[list[Part]] = []
    for most in range(MOST_IN_A_ROW, 0, -1):
        rows = -(-len(names) // most)
        in_a_row = -(-len(names) // max(rows, 1))
        found = [_part_row(layer, names[i * in_a_row : (i + 1) * in_a_row], width) for i in range(rows)]
        if all(part.room_left >= 0 for row in found for part in row):
            break
    return found


def _part_row(layer: Layer, names: list[str], width: float) -> list[Part]:
    title = {name: text_width(f"{name}/", 13, bold=True) + 14 for name in names}  # and a dot
    needed = [max(title[name], *(text_width(file, SMALL) for file in layer.parts[name])) for name in names]
    spare = width - 2 * PAD - PART_GAP * (len(names) - 1) - sum(needed) - 2 * PART_PAD * len(names)
    inner = [least + spare / len(names) for least in needed]
    return [
        Part(name, room + 2 * PART_PAD, wrapped(layer.parts[name], BETWEEN, room, SMALL), spare)
        for name, room in zip(names, inner, strict=True)
    ]


def _row_height(row: list[Part]) -> float:
    return 28 + LINE_HEIGHT * max(len(part.lines) for part in row)


def _height(layer: Layer, width: float) -> float:
    sentence, files = _lines_of(layer, width)
    parts = sum(PART_GAP + _row_height(row) for row in _part_rows(layer, width))
    return 42 + LINE_HEIGHT * (len(sentence) + len(files)) + parts + (6 if parts else 0)


def _draw_layer(drawing: Drawing, layer: Layer, x: float, y: float, width: float, height: float) -> None:
    color, tint = COLORS[layer.name]
    drawing.box(x, y, width, height, tint, color)
    drawing.text(x + PAD, y + 24, layer.name if layer.name == SCRIPTS else f"{layer.name}/", 16, color, bold=True)
    if "" in layer.with_torch:
        drawing.dot(x + width - 16, y + 17, TORCH)
    sentence, files = _lines_of(layer, width)
    baseline = y + 44
    for line in sentence:
        drawing.text(x + PAD, baseline, line, SMALL, GREY)
        baseline += LINE_HEIGHT
    baseline += 4
    for line in files:
        drawing.text(x + PAD, baseline, line, SMALL)
        baseline += LINE_HEIGHT
    top = baseline - 4
    for row in _part_rows(layer, width):
        _draw_parts(drawing, layer, row, (x + PAD, top))
        top += _row_height(row) + PART_GAP


def _draw_parts(drawing: Drawing, layer: Layer, row: list[Part], corner: tuple[float, float]) -> None:
    color, _ = COLORS[layer.name]
    x, y = corner
    for part in row:
        drawing.box(x, y, part.width, _row_height(row), "#ffffff", color + "66", radius=6)
        drawing.text(x + PART_PAD, y + 18, f"{part.name}/", 13, color, bold=True)
        if part.name in layer.with_torch:
            drawing.dot(x + part.width - 12, y + 13, TORCH)
        for i, line in enumerate(part.lines):
            drawing.text(x + PART_PAD, y + 36 + LINE_HEIGHT * i, line, SMALL)
        x += part.width + PART_GAP
