"""Sizes and colours of the drawings."""

from __future__ import annotations

from docs.figures.drawing.svg import GREY, INK, LINE, Drawing, text_width
from evaluators.report.theme import DARK as DARK_PAGE
from evaluators.report.theme import LIGHT as LIGHT_PAGE

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
SHEET, OUTLINE = "#ffffff", "#d5dae1"
QUIET = "#f3f5f8"
GOOD, NEAR, BAD = LIGHT_PAGE["good"], LIGHT_PAGE["near"], LIGHT_PAGE["bad"]
EDGE, CANVAS_EDGE = LIGHT_PAGE["edge"], "#bcc4ce"
CELLS = {str(color): LIGHT_PAGE[f"c{color}"] for color in range(10)} | {".": "#e8ebef", "e": "#c9b8f0"}
"""Of the signs of a canvas: colours as digits, PAD as `.`, EOS as `e`."""

DARK = {
    SHEET: "#0f1318",
    OUTLINE: "#30363d",
    INK: "#e6e9ee",
    GREY: "#a3adb9",
    LINE: "#7d8793",
    "#475569": "#b6c2d2",
    QUIET: "#1a1f26",
    "#6d3fc4": "#b99bf2",
    "#f6f2fd": "#1f1a2b",
    "#1f62c7": "#7fb2f7",
    "#eff5fe": "#152033",
    "#0d7a55": "#5fcfa5",
    "#edf8f3": "#12241d",
    "#b4470f": "#f0a172",
    "#fef4ec": "#2a1c12",
    TORCH: "#ff8a65",
    CANVAS_EDGE: "#3f4750",
    CELLS["."]: "#262c34",
    CELLS["e"]: "#54457c",
    **{LIGHT_PAGE[name]: DARK_PAGE[name] for name in ("good", "near", "bad", "edge")},
}
"""The dark colour of each light one."""


def new_drawing() -> Drawing:
    """Returns an empty drawing of the common width and colours."""
    return Drawing(WIDTH, DARK)


def draw_heading(drawing: Drawing, y: float, title: str, remark: str) -> None:
    """Writes a title and a remark beside it; y is their baseline."""
    drawing.text(MARGIN, y, title, size=18, bold=True)
    drawing.text(MARGIN + text_width(title, 18, bold=True) + 12, y, remark, size=13, color=GREY)
