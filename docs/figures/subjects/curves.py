"""Draws learning curves of runs: the mean over the seeds of a recipe, and the range between the lowest and highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from docs.figures.drawing.style import COLORS, MARGIN, OUTLINE, WIDTH, draw_heading, new_drawing
from docs.figures.drawing.svg import GREY, INK, Drawing, text_width
from evaluators.report.recipe import PLACES, read_settings
from utils.errors import InputError
from utils.metrics_log import read_metrics
from utils.plot import CURVES, POINTS_IN_PICTURE, select_curves

PANELS = ("lm_loss", "exact_accuracy")
OF_SEEDS = (*PLACES, "seed")
"""Settings in which the runs of one recipe may differ."""

INKS = [COLORS[name][0] for name in ("training", "models", "dataset", "evaluators", "scripts")]
DASHES = ("", "6 4", "2 3")
LEFT, PANEL_HEIGHT, GAP = MARGIN + 26, 210.0, 64.0
MOST_POINTS = 120


class Curve(NamedTuple):
    """One metric of one recipe: int64 steps [N], and float64 mean, lowest and highest [N] over its seeds."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class RecipeRuns(NamedTuple):
    """The runs of a recipe, under the name that is shown."""

    name: str
    logs: list[list[dict[str, Any]]]


def find_recipes(folder: Path) -> list[RecipeRuns]:
    """Returns the runs in a folder, those together that differ in nothing but the seed and the place.

    Raises:
        InputError: if no folder in it has a log with curves.
    """
    grouped: dict[str, list[Path]] = {}
    for log in sorted(folder.glob("*/metrics.jsonl")):
        settings = read_settings(log.parent)
        key = str(sorted((name, value) for name, value in settings.items() if name not in OF_SEEDS))
        grouped.setdefault(key, []).append(log.parent)
    recipes = []
    for runs in grouped.values():
        logs = [read_metrics(run / "metrics.jsonl") for run in runs]
        logs = [log for log in logs if select_curves(log, PANELS, POINTS_IN_PICTURE)]
        if logs:
            recipes.append(RecipeRuns(_common_name([run.name for run in runs]), logs))
    if not recipes:
        raise InputError(f"no run in {folder} has curves of {' or '.join(PANELS)}: name a folder of folders of runs")
    return recipes


def _common_name(names: Sequence[str]) -> str:
    """Returns what names have in common, without the number of a seed behind it."""
    parts = [name.split("-") for name in names]
    common = [words[0] for words in zip(*parts, strict=False) if len(set(words)) == 1]
    return "-".join(common if len(names) > 1 and common else parts[0])


def curve_of(logs: Sequence[Sequence[Mapping[str, Any]]], metric: str) -> Curve | None:
    """Returns a metric over the steps that all logs have; None if they share fewer than two."""
    values = [{int(step): value for step, value in _points(log, metric)} for log in logs]
    shared = sorted(set.intersection(*(set(each) for each in values)))
    if len(shared) < 2:
        return None
    table = np.array([[each[step] for step in shared] for each in values])
    every = -(-len(shared) // MOST_POINTS)
    kept = table[:, ::every]
    return Curve(np.array(shared[::every]), kept.mean(0), kept.min(0), kept.max(0))


def _points(log: Sequence[Mapping[str, Any]], metric: str) -> list[list[float]]:
    return select_curves(log, (metric,), len(log) or 1).get(metric, [])


def draw_curves_of(folder: Path) -> str:
    """Returns the drawing of the runs in a folder, as SVG."""
    recipes = find_recipes(folder)
    drawing = new_drawing()
    seeds = sorted({len(recipe.logs) for recipe in recipes})
    remark = "one run each" if seeds == [1] else f"{'-'.join(map(str, seeds))} seeds each: the mean, and their range"
    draw_heading(drawing, 40, "Learning curves", remark)
    bottom = _draw_legend(drawing, [recipe.name for recipe in recipes], 70)
    width = (WIDTH - MARGIN - LEFT - GAP) / 2
    for i, metric in enumerate(PANELS):
        curves = [curve_of(recipe.logs, metric) for recipe in recipes]
        _draw_panel(drawing, LEFT + i * (width + GAP), bottom + 44, width, metric, curves)
    return drawing.to_svg(bottom + 44 + PANEL_HEIGHT + 44, "Learning curves of several recipes, with their spread")


def _styles(count: int) -> list[tuple[str, str]]:
    inks = cycle(INKS)
    return [(next(inks), DASHES[i // len(INKS) % len(DASHES)]) for i in range(count)]


def _draw_legend(drawing: Drawing, names: Sequence[str], y: float) -> float:
    x = MARGIN
    for name, (ink, dash) in zip(names, _styles(len(names)), strict=True):
        needed = 34 + text_width(name, 14) + 24
        if x > MARGIN and x + needed > WIDTH - MARGIN:
            x, y = MARGIN, y + 24
        drawing.line([(x, y - 5), (x + 26, y - 5)], ink, 3, dash)
        drawing.text(x + 34, y, name, 14, INK)
        x += needed
    return y


def _draw_panel(
    drawing: Drawing, x: float, y: float, width: float, metric: str, curves: Sequence[Curve | None]
) -> None:
    drawing.text(x, y - 10, CURVES[metric], 15, INK, bold=True)
    known = [curve for curve in curves if curve is not None]
    if not known:
        drawing.text(x, y + 24, "not in these logs", 14, GREY)
        return
    is_fraction = "accuracy" in metric
    top = 1.0 if is_fraction else max(float(curve.high.max()) for curve in known)
    last = max(int(curve.steps[-1]) for curve in known)

    def place(step: float, value: float) -> tuple[float, float]:
        return x + width * step / last, y + PANEL_HEIGHT * (1 - value / top)

    for i in range(5):
        level = top * i / 4
        height = place(0, level)[1]
        drawing.line([(x, height), (x + width, height)], OUTLINE)
        label = f"{level:.0%}" if is_fraction else f"{level:.2g}"
        drawing.text(x - 4 - text_width(label, 12), height + 4, label, 12, GREY)
    for step in (0, last // 2, last):
        drawing.centred(place(step, 0)[0], y + PANEL_HEIGHT + 20, f"{step:,}", 60, 13, GREY)
    drawing.centred(x + width / 4, y + PANEL_HEIGHT + 20, "step", 60, 13, GREY)
    for curve, (ink, dash) in zip(curves, _styles(len(curves)), strict=True):
        if curve is None:
            continue
        high, low = ([place(*point) for point in zip(curve.steps, edge, strict=True)] for edge in curve[2:][::-1])
        if (curve.high > curve.low).any():
            drawing.area([*high, *low[::-1]], ink, 0.18)
        drawing.line([place(*point) for point in zip(curve.steps, curve.mean, strict=True)], ink, 2, dash)
