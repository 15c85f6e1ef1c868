"""Draws one solved held-out puzzle: its demonstrations, the answer after each ACT step, the votes."""

from __future__ import annotations

from pathlib import Path

from docs.figures.drawing.style import (
    CELLS,
    EDGE,
    GOOD,
    MARGIN,
    OUTLINE,
    QUIET,
    WIDTH,
    draw_heading,
    new_drawing,
)
from docs.figures.drawing.svg import GREY, INK, Drawing
from evaluators.picture.solved import Solved, choose_solved
from evaluators.report.saved_run import read_saved_run
from evaluators.report.task_values import find_differences
from utils.errors import DataError
from utils.progress import count_of

MOST_PAIRS, MOST_STEPS, MOST_CANDIDATES = 4, 4, 3
STEP_SIDE, CANDIDATE_SIDE = 132.0, 44.0
"""The longer side of a grid, at most."""

PAIR_SIDES = (120.0, 100.0, 80.0, 60.0)
"""Those of demonstrations; the first with which they fit beside each other is taken."""

MARK = "#fefefe"
"""White also on a dark page, on which `#ffffff` is the sheet."""

LEAST_WIDTH = 96.0
"""Of a column of the steps, for what is said of them."""

INNER = WIDTH - 2 * MARGIN
LEAST_VOTES = 400.0
"""The width that candidates with their bars need beside the steps."""


def draw_solved_run(run: Path, data: Path | None = None) -> str:
    """Returns the drawing of the most telling test input that a run has solved, as SVG.

    Args:
        run: the folder of a run of eval_arc_k10.py.  data: its data set, if it has moved.

    Raises:
        DataError: if the run has no evaluation, or has solved nothing.
    """
    solved = choose_solved(read_saved_run(run, data)[1]["tasks"], 1)
    if not solved:
        raise DataError(f"{run} has solved no test input with its first attempt: name a run that has")
    return draw_solved(solved[0])


def draw_solved(found: Solved) -> str:
    """Returns the drawing as SVG."""
    drawing = new_drawing()
    draw_heading(
        drawing, 40, "A held-out puzzle, solved", f"ARC task {found.task['id'][:24]}; the answer was never shown"
    )
    bottom = _draw_pairs(drawing, found, 62)
    top = bottom + 22
    right, bottom = _draw_steps(drawing, found, top)
    if right + LEAST_VOTES < WIDTH - MARGIN:
        bottom = max(bottom, _draw_votes(drawing, found, right + 24, top))
    else:
        bottom = _draw_votes(drawing, found, MARGIN, bottom + 22)
    return drawing.to_svg(bottom + 24, f"A solved puzzle: ARC task {found.task['id'][:24]}")


def _cell(grids: list[str], side: float) -> float:
    """Returns the size of a cell that gives the longest side of all grids at most `side`, a whole number."""
    longest = max(max(len(rows), len(rows[0])) for rows in (grid.split("/") for grid in grids if grid))
    return max(3.0, side // longest)


def _size(grid: str, cell: float) -> tuple[float, float]:
    """Returns width and height of a grid as it is drawn."""
    rows = grid.split("/")
    return len(rows[0]) * cell + 1, len(rows) * cell + 1


def _draw_pairs(drawing: Drawing, found: Solved, y: float) -> float:
    pairs = found.task["train"][:MOST_PAIRS]
    for side in PAIR_SIDES:
        cell = _cell([grid for pair in pairs for grid in pair.values()], side)
        widths = [_size(pair["input"], cell)[0] + 36 + _size(pair["output"], cell)[0] for pair in pairs]
        if sum(widths) + 24 * (len(pairs) - 1) <= INNER:
            break
    height = max(_size(grid, cell)[1] for pair in pairs for grid in pair.values())
    left_out = len(found.task["train"]) - len(pairs)
    more = f", {left_out} more are not drawn" if left_out else ""
    drawing.text(MARGIN, y + 14, f"What the rule is, in examples{more}", 15, INK, bold=True)
    y += 28
    gap = min(56.0, (INNER - sum(widths)) / max(1, len(pairs) - 1))
    x = MARGIN
    for pair, width in zip(pairs, widths, strict=True):
        given, tall = _size(pair["input"], cell)
        drawing.cells(x, y + (height - tall) / 2, pair["input"].split("/"), cell, CELLS, EDGE)
        drawing.arrow((x + given + 7, y + height / 2), (x + given + 30, y + height / 2))
        tall = _size(pair["output"], cell)[1]
        drawing.cells(x + given + 36, y + (height - tall) / 2, pair["output"].split("/"), cell, CELLS, EDGE)
        x += width + gap
    return y + height


def _shown_steps(found: Solved) -> list[tuple[int, str]]:
    """Returns (number, grid) of the ACT steps that are drawn: those that change the answer; of many the last ones."""
    steps = found.test["steps"]
    changed = [(n, grid) for n, grid in enumerate(steps, start=1) if grid and (n == 1 or grid != steps[n - 2])]
    return changed if len(changed) <= MOST_STEPS else [changed[0], *changed[1 - MOST_STEPS :]]


def _draw_steps(drawing: Drawing, found: Solved, y: float) -> tuple[float, float]:
    """Draws the test input and what the network makes of it; returns where they end, to the right and below."""
    test, steps = found.test, _shown_steps(found)
    shown = [("test input", test["input"])] + [(f"after step {n}", grid) for n, grid in steps]
    cell = _cell([grid for _, grid in shown], STEP_SIDE)
    widths = [max(_size(grid, cell)[0], LEAST_WIDTH) for _, grid in shown]
    inner, height = max(_size(grid, cell)[1] for _, grid in shown), 68.0
    right = MARGIN + 32 + sum(widths) + 46 * (len(shown) - 1)
    drawing.box(MARGIN, y, right - MARGIN, inner + height, QUIET, OUTLINE)
    x = MARGIN + 16
    for i, ((caption, grid), width) in enumerate(zip(shown, widths, strict=True)):
        if i:
            drawing.arrow((x - 40, y + 34 + inner / 2), (x - 8, y + 34 + inner / 2))
        tall = _size(grid, cell)[1]
        drawing.text(x, y + 22, caption, 14, INK, bold=not i)
        _draw_grid(drawing, x, y + 34 + (inner - tall) / 2, grid, test["truth"] if i else None, cell)
        if i:
            says, is_right = _judge(grid, test["truth"])
            drawing.text(x, y + 34 + inner + 21, says, 14, GOOD if is_right else GREY, bold=is_right)
        x += width + 46
    return right, y + inner + height


def _draw_grid(drawing: Drawing, x: float, y: float, grid: str, truth: str | None, cell: float) -> None:
    """Draws a grid, with a mark on those cells that differ from the truth."""
    rows = grid.split("/")
    drawing.cells(x, y, rows, cell, CELLS, EDGE)
    for r, c in find_differences(grid, truth):
        middle = (x + (c + 0.5) * cell + 0.5, y + (r + 0.5) * cell + 0.5)
        drawing.dot(*middle, MARK, cell * 0.24)
        drawing.dot(*middle, "#000000", cell * 0.15)


def _judge(grid: str, truth: str) -> tuple[str, bool]:
    """Returns what is said of an answer, and whether it is right."""
    wrong = len(find_differences(grid, truth))
    if grid == truth:
        return "right", True
    return (count_of(wrong, "wrong cell", "wrong cells") if wrong else "another size"), False


def _draw_votes(drawing: Drawing, found: Solved, x: float, y: float) -> float:
    """Draws the first candidates with their votes as bars, and which is right; returns where they end."""
    test = found.test
    attempts, total = test["attempts"][:MOST_CANDIDATES], test["votes"]
    drawing.text(x, y + 22, f"{total:g} augmented forms of the puzzle vote", 15, INK, bold=True)
    y += 34
    cell = _cell([attempt["grid"] for attempt in attempts], CANDIDATE_SIDE)
    left = x + CANDIDATE_SIDE + 16
    room = WIDTH - MARGIN - left - 170
    for n, attempt in enumerate(attempts, start=1):
        _, height = _size(attempt["grid"], cell)
        is_right = attempt["grid"] == test["truth"]
        _draw_grid(drawing, x, y, attempt["grid"], test["truth"], cell)
        long = max(4.0, room * attempt["votes"] / total)
        fill = GOOD if is_right else OUTLINE
        drawing.box(left, y + height / 2 - 10, long, 20, fill, fill, 4)
        says = f"{attempt['votes']:g}, attempt {n}" + (": right" if is_right else "")
        drawing.text(left + long + 10, y + height / 2 + 5, says, 14, GOOD if is_right else GREY, bold=is_right)
        y += height + 10
    return y - 10
