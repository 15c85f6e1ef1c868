"""Draws the recursion: what one supervised step computes, in which order, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from docs.figures.drawing.style import COLORS, MARGIN, OUTLINE, QUIET, SHEET, WIDTH, draw_heading, new_drawing
from docs.figures.drawing.svg import GREY, INK, LINE, Drawing, text_width
from models.arch import ArchConfig
from models.recursion import RECURSIONS, Depth

QUESTION, ANSWER, REASONING = COLORS["utils"], COLORS["training"], COLORS["models"]
TRAINED = COLORS["dataset"]
INNER = WIDTH - 2 * MARGIN


class Update(NamedTuple):
    """One use of the network: the latent that it makes anew, and whether gradients flow through it."""

    latent: str
    has_gradient: bool


def record_updates(arch: ArchConfig) -> list[list[Update]]:
    """Returns the updates of one step of `trm`, a list for each H cycle, as its recursion makes them."""
    cycles: list[list[Update]] = [[]]
    z_H, z_L = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)

    def f(z: Tensor, _: Tensor | None) -> Tensor:
        latent = "z_H" if bool(z == z_H) else "z_L"
        cycles[-1].append(Update(latent, torch.is_grad_enabled()))
        if latent == "z_H":
            cycles.append([])
        return z

    RECURSIONS["trm"].apply((z_H, z_L), torch.zeros(1, 1, 1), f, f, Depth(arch.H_cycles, arch.L_cycles))
    return cycles[:-1]


def draw_recursion(arch: ArchConfig) -> str:
    """Returns the drawing as SVG."""
    drawing = new_drawing()
    cycles = record_updates(arch)
    uses = sum(map(len, cycles))
    draw_heading(drawing, 40, "How TRM thinks", f"one small network f of {arch.L_layers} blocks, used again and again")
    _draw_tensors(drawing, 60)
    bottom = _draw_step(drawing, 178, cycles, uses, arch)
    bottom = _draw_ends(drawing, bottom + 34, arch)
    return drawing.to_svg(bottom + 22, "The recursion of a tiny recursive model")


def _draw_tensors(drawing: Drawing, y: float) -> None:
    """Draws what a step starts with, in three cards."""
    gap = 16.0
    width = (INNER - 2 * gap) / 3
    cards = (
        (QUESTION, "e", "the question x", ("the input grid and the puzzle's", "row, embedded: a vector per cell")),
        (ANSWER, "z_H", "the answer so far", ("a vector per cell; at the end of", "a step it is read as a grid")),
        (REASONING, "z_L", "the reasoning", ("a vector per cell;", "it is never shown to anyone")),
    )
    for i, ((color, tint), name, title, lines) in enumerate(cards):
        x = MARGIN + i * (width + gap)
        drawing.box(x, y, width, 84, tint, color)
        drawing.text(x + 14, y + 27, name, 18, color, bold=True)
        drawing.text(x + 60, y + 26, title, 15, INK, bold=True)
        for n, line in enumerate(lines):
            drawing.text(x + 14, y + 50 + 18 * n, line, 13, GREY)
        drawing.arrow((x + width / 2, y + 86), (x + width / 2, y + 115))


def _draw_step(drawing: Drawing, y: float, cycles: Sequence[Sequence[Update]], uses: int, arch: ArchConfig) -> float:
    """Draws one supervised step, a row for each H cycle; returns where it ends."""
    row = 62.0
    height = 92 + row * len(cycles) + 10
    drawing.box(MARGIN, y, INNER, height, SHEET, LINE, radius=12)
    words = f"One supervised step: f is used {uses} times, {arch.H_cycles} x ({arch.L_cycles} + 1)"
    drawing.text(MARGIN + 16, y + 28, words, 16, INK, bold=True)
    half = INNER / 2
    for x, (color, tint), name, formula, says in (
        (MARGIN + 16, REASONING, "L", "z_L = f(z_L, z_H + e)", "think again"),
        (MARGIN + 16 + half, ANSWER, "H", "z_H = f(z_H, z_L)", "improve the answer"),
    ):
        drawing.box(x, y + 44, 28, 26, tint, color, radius=6)
        drawing.centred(x + 14, y + 62, name, 28, 14, color, bold=True)
        drawing.text(x + 38, y + 62, formula, 15, INK)
        drawing.text(x + 222, y + 62, says, 14, GREY)
    for i, cycle in enumerate(cycles):
        _draw_cycle(drawing, y + 86 + row * i, i + 1, cycle, row - 10)
        if i:
            right = WIDTH - MARGIN - 14
            drawing.arrow((right - 36, y + 86 + row * i - 12), (right - 36, y + 86 + row * i - 1))
    return y + height


def _draw_cycle(drawing: Drawing, y: float, number: int, cycle: Sequence[Update], height: float) -> None:
    trained = cycle[-1].has_gradient
    color, tint = TRAINED if trained else (OUTLINE, QUIET)
    left, width = MARGIN + 12, INNER - 24
    drawing.box(left, y, width, height, tint, color)
    drawing.text(left + 12, y + 22, f"H cycle {number}", 14, INK, bold=True)
    remark = "the loss trains this one" if trained else "without gradient"
    drawing.text(left + 12, y + 41, remark, 13, TRAINED[0] if trained else GREY)
    first, gap = left + 186, 20.0
    size = (width - 186 - 14 - gap * (len(cycle) - 1)) / len(cycle)
    size = min(size, 76.0)
    gap = (width - 186 - 14 - size * len(cycle)) / max(1, len(cycle) - 1)
    for i, update in enumerate(cycle):
        x = first + i * (size + gap)
        ink, paper = ANSWER if update.latent == "z_H" else REASONING
        drawing.box(x, y + 10, size, height - 20, paper, ink, radius=6)
        drawing.centred(x + size / 2, y + height / 2 + 5, update.latent, size - 4, 15, ink, bold=True)
        if i:
            drawing.arrow((x - gap + 1, y + height / 2), (x - 2, y + height / 2))


def _draw_ends(drawing: Drawing, y: float, arch: ArchConfig) -> float:
    """Draws what is read from z_H and what is decided; returns where it ends."""
    gap, height = 28.0, 84.0
    width = (INNER - 2 * gap) / 3
    color, tint = ANSWER
    middle = [MARGIN + width / 2 + i * (width + gap) for i in range(3)]
    for i, (title, lines) in enumerate(
        (
            ("the answer", ("from z_H, a colour for each cell;", "the loss compares it to the truth")),
            ("the halting logit", ("from z_H too, one number:", "is the answer right by now?")),
        )
    ):
        x = MARGIN + i * (width + gap)
        drawing.arrow((middle[i], y - 32), (middle[i], y - 2))
        drawing.box(x, y, width, height, tint, color)
        drawing.text(x + 14, y + 27, title, 15, INK, bold=True)
        for n, line in enumerate(lines):
            drawing.text(x + 14, y + 50 + 18 * n, line, 13, GREY)
    x = MARGIN + 2 * (width + gap)
    drawing.arrow((x - gap + 1, y + height / 2), (x - 2, y + height / 2))
    drawing.box(x, y, width, height, SHEET, LINE)
    drawing.text(x + 14, y + 27, "halt, or step again?", 15, INK, bold=True)
    drawing.text(x + 14, y + 50, "logit above 0: halt, next puzzle", 13, GREY)
    drawing.text(x + 14, y + 68, f"else again, up to {arch.halt_max_steps} steps", 13, GREY)
    edge, turn = WIDTH - MARGIN + 17, y + height + 18
    drawing.arrow((middle[2], y + height + 1), (middle[2], turn), (edge, turn), (edge, 102), (edge - 14, 102))
    words = "step again: the next step starts from these z_H and z_L"
    drawing.text(middle[2] - 16 - text_width(words, 14), turn + 5, words, 14, INK)
    return turn + 6
