"""Draws one solved held-out puzzle: its demonstrations, the answer after each ACT step, the votes."""

from __future__ import annotations

from pathlib import Path

from docs.figures.drawing.style import (
    CELLS,
    COLORS,
    EDGE,
    GOOD,
    MARGIN,
    OUTLINE,
    QUIET,
    SHEET,
    WIDTH,
    draw_heading,
    new_drawing,
)
from docs.figures.drawing.svg import GREY, INK, Drawing
from evaluators.report.saved_run import read_saved_run
from evaluators.report.showcase import SolvedTest, choose_solved
from utils.errors import DataError

MOST_PAIRS, MOST_STEPS, MOST_CANDIDATES = 4, 4, 4
PAIR_SIDE, STEP_SIDE = 84.0, 132.0
"""The longer side of a grid, at most."""

INNER = WIDTH - 2 * MARGIN


def draw_solved_run(run: Path, data: Path | None = None) -> str:
    """Returns the drawing of the most telling test input that a run has solved, as SVG.

    Args:
        run: the folder of a run of eval_arc_k10.py.  data: its data set, if it has moved.

    Raises:
        DataError: if the run has no evaluation, or has solved nothing.
    """
    solved = choose_solved(read_saved_run(run, data)[1]["tasks"])
    if not solved:
        raise DataError(f"{run} has solved no test input with its first attempt: name a run that has")
    return draw_solved(solved[0])


def draw_solved(found: SolvedTest) -> str:
    """Returns the drawing as SVG."""
    drawing = new_drawing()
    draw_heading(drawing, 40, "A puzzle that was never shown the answer to", f"ARC task {found.task['id'][:24]}")
    bottom = _draw_pairs(drawing, found, 62)
    bottom = _draw_steps(drawing, found, bottom + 22)
    bottom = _draw_votes(drawing, found, bottom + 22)
    return drawing.to_svg(bottom + 24, f"A solved puzzle: ARC task {found.task['id'][:24]}")


def _cell(grids: list[str], side: float) -> float:
    """Returns the size of a cell that gives the longest side of all grids at most `side`, a whole number."""
    longest = max(max(len(rows), len(rows[0])) for rows in (grid.split("/") for grid in grids if grid))
    return max(3.0, side // longest)


def _size(grid: str, cell: float) -> tuple[float, float]:
    """Returns width and height of a grid as it is drawn."""
    rows = grid.split("/")
    return len(rows[0]) * cell + 1, len(rows) * cell + 1


def _draw_pairs(drawing: Drawing, found: SolvedTest, y: float) -> float:
    pairs = found.task["train"][:MOST_PAIRS]
    cell = _cell([grid for pair in pairs for grid in pair.values()], PAIR_SIDE)
    widths = [_size(pair["input"], cell)[0] + 36 + _size(pair["output"], cell)[0] for pair in pairs]
    height = max(_size(grid, cell)[1] for pair in pairs for grid in pair.values())
    left_out = len(found.task["train"]) - len(pairs)
    more = f", {left_out} more are not drawn" if left_out else ""
    drawing.text(MARGIN, y + 14, f"What the rule is, in examples{more}", 15, INK, bold=True)
    y += 28
    gap = min(56.0, (INNER - sum(widths)) / max(1, len(pairs) - 1))
    x = MARGIN
    for pair, width in zip(pairs, widths, strict=True):
        drawing.cells(x, y, pair["input"].split("/"), cell, CELLS, EDGE)
        given = _size(pair["input"], cell)[0]
        drawing.arrow((x + given + 7, y + height / 2), (x + given + 30, y + height / 2))
        drawing.cells(x + given + 36, y, pair["output"].split("/"), cell, CELLS, EDGE)
        x += width + gap
    return y + height


def _shown_steps(found: SolvedTest) -> list[tuple[int, str]]:
    """Returns (number, grid) of the ACT steps that are drawn: those that change the answer; of many the last ones."""
    steps = found.test["steps"]
    changed = [(n, grid) for n, grid in enumerate(steps, start=1) if grid and (n == 1 or grid != steps[n - 2])]
    return changed if len(changed) <= MOST_STEPS else [changed[0], *changed[1 - MOST_STEPS :]]


def _draw_steps(drawing: Drawing, found: SolvedTest, y: float) -> float:
    """Draws the test input and what the network makes of it; returns where they end."""
    test, steps = found.test, _shown_steps(found)
    shown = [("test input", test["input"])] + [(f"after step {n}", grid) for n, grid in steps]
    cell = _cell([grid for _, grid in shown], STEP_SIDE)
    height = max(_size(grid, cell)[1] for _, grid in shown) + 70
    drawing.box(MARGIN, y, INNER, height, QUIET, OUTLINE)
    x = MARGIN + 16
    for i, (caption, grid) in enumerate(shown):
        width, tall = _size(grid, cell)
        if i:
            drawing.arrow((x, y + 34 + tall / 2), (x + 34, y + 34 + tall / 2))
            x += 44
        drawing.text(x, y + 22, caption, 14, INK, bold=not i)
        drawing.cells(x, y + 34, grid.split("/"), cell, CELLS, EDGE)
        if i:
            wrong, right = _differences(grid, test["truth"])
            says = "right" if right else f"{wrong} wrong cells" if wrong else "another size"
            drawing.text(x, y + 34 + tall + 20, says, 14, GOOD if right else GREY, bold=right)
        x += max(width, 96)
    return y + height


def _differences(grid: str, truth: str) -> tuple[int, bool]:
    """Returns how many cells differ, 0 if the sizes do, and whether the grids are equal."""
    same_size = [len(row) for row in grid.split("/")] == [len(row) for row in truth.split("/")]
    return sum(a != b for a, b in zip(grid, truth, strict=True)) if same_size else 0, grid == truth


def _draw_votes(drawing: Drawing, found: SolvedTest, y: float) -> float:
    """Draws the first candidates with their votes as bars, and which is right; returns where they end."""
    test = found.test
    attempts = test["attempts"][:MOST_CANDIDATES]
    total = test["votes"]
    drawing.text(MARGIN, y + 14, f"{total:g} augmented forms of the puzzle vote", 15, INK, bold=True)
    y += 30
    cell = _cell([attempt["grid"] for attempt in attempts], 44)
    left = MARGIN + 72
    for n, attempt in enumerate(attempts, start=1):
        width, height = _size(attempt["grid"], cell)
        right = attempt["grid"] == test["truth"]
        drawing.cells(MARGIN, y, attempt["grid"].split("/"), cell, CELLS, EDGE)
        long = max(4.0, 420 * attempt["votes"] / total)
        drawing.box(left, y + height / 2 - 11, long, 22, GOOD if right else COLORS["utils"][1], GOOD if right else EDGE, 4)
        says = f"{attempt['votes']:g} of {total:g} votes" + (f": attempt {n}, right" if right else f": attempt {n}")
        drawing.text(left + long + 12, y + height / 2 + 5, says, 14, GOOD if right else GREY, bold=right)
        y += height + 12
    return y - 12
