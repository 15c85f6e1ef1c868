"""Draws the layers of the project and, below them, the data's path through them."""

from __future__ import annotations

from docs.figures.drawing.style import new_drawing
from docs.figures.structure.data_path import draw_path
from docs.figures.structure.imports import Layer
from docs.figures.structure.layers import draw_layers


def draw(layers: dict[str, Layer]) -> str:
    """Returns the drawing as SVG."""
    drawing = new_drawing()
    bottom = draw_path(drawing, draw_layers(drawing, layers, 44) + 56)
    return drawing.to_svg(bottom + 26, "The layers of the project and the path of the data")
