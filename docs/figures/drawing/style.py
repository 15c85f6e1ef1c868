"""Sizes and colours of the drawing."""

from __future__ import annotations

from docs.figures.drawing.svg import GREY, Drawing, text_width

WIDTH, MARGIN, GAP, PAD = 900.0, 34.0, 30.0, 14.0
SMALL, LINE_HEIGHT = 12.0, 16.0
PART_PAD, PART_GAP = 9.0, 8.0
BETWEEN = " · "
MOST_IN_A_ROW = 5

COLORS = {  # outline and title, tint
    "scripts": ("#475569", "#f3f5f8"),
    "evaluators": ("#6d3fc4", "#f6f2fd"),
    "training": ("#1f62c7", "#eff5fe"),
    "dataset": ("#0d7a55", "#edf8f3"),
    "models": ("#b4470f", "#fef4ec"),
    "utils": ("#5b6675", "#f3f5f8"),
}
TORCH = "#e0552b"


def draw_heading(drawing: Drawing, y: float, title: str, remark: str) -> None:
    """Writes a title and a remark beside it; y is their baseline."""
    drawing.text(MARGIN, y, title, size=18, bold=True)
    drawing.text(MARGIN + text_width(title, 18, bold=True) + 12, y, remark, size=13, color=GREY)
