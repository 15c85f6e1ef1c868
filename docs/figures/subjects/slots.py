"""Draws slots over time: which example each slot works on in each step, and why it halts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from docs.figures.drawing.style import COLORS, GOOD, MARGIN, NEAR, SHEET, WIDTH, draw_heading, new_drawing
from docs.figures.drawing.svg import GREY, INK, LINE, Drawing
from models.act import Carry, Slots, advance, refill
from models.arch import ArchConfig
from training.step import exploration

SLOTS, STEPS, SEED = 8, 36, 0
LEFT = MARGIN + 62
CELL = (WIDTH - MARGIN - LEFT) / STEPS
ROW = 36.0
SHADES = (COLORS["training"], COLORS["models"], COLORS["evaluators"], COLORS["dataset"])


class Stay(NamedTuple):
    """One example in its slot.

    first, end: the first step and the one after the last, of all.  number: of the example, in the order of taking.
    held: steps after which it was sure and might not halt.  sure: whether it is sure at the end; None: it is not at it.
    """

    slot: int
    first: int
    end: int
    number: int
    held: tuple[int, ...]
    sure: bool | None


def simulate_slots(arch: ArchConfig, slots: int = SLOTS, steps: int = STEPS, seed: int = SEED) -> list[Stay]:
    """Returns the stays of a training, by the code that refills slots and decides which halt.

    Only the halting logits are made up: each example becomes sure after a number of steps that is drawn uniformly from
    2 to a quarter more than `arch.halt_max_steps`.
    """
    rng = np.random.default_rng(seed)
    needs = torch.as_tensor(rng.integers(2, arch.halt_max_steps * 5 // 4 + 1, slots * steps + 1))
    network: Any = SimpleNamespace(arch=arch)
    empty = torch.zeros(slots, 1, dtype=torch.int64)
    carry = Carry(
        (),
        torch.zeros(slots, dtype=torch.int32),
        torch.ones(slots, dtype=torch.bool),
        Slots(empty, empty, torch.zeros(slots, dtype=torch.int64)),
    )
    stays: list[Stay] = []
    started, held, taken = [0] * slots, [()] * slots, 0  # type: list[int], list[tuple[int, ...]], int
    for step in range(steps):
        numbers = taken + carry.halted.long().cumsum(0)
        taken += int(carry.halted.sum())
        for slot in torch.nonzero(carry.halted).flatten().tolist():
            started[slot], held[slot] = step, ()
        carry = refill(carry, Slots(empty, empty, numbers), ())
        sure = carry.steps + 1 >= needs[carry.data.puzzle_identifiers]
        out: Any = SimpleNamespace(latents=(), q_halt=sure.float() - 0.5, q_continue=torch.zeros(slots))
        least = torch.as_tensor(exploration(seed, step, slots, arch.halt_exploration_prob, arch.halt_max_steps))
        carry, _ = advance(network, carry, out, None, least, training=True)
        for slot in range(slots):
            if sure[slot] and not carry.halted[slot]:
                held[slot] += (step,)
            if carry.halted[slot] or step == steps - 1:
                ends = bool(sure[slot]) if carry.halted[slot] else None
                number = int(carry.data.puzzle_identifiers[slot])
                stays.append(Stay(slot, started[slot], step + 1, number, held[slot], ends))
    return stays


def draw_slots(arch: ArchConfig) -> str:
    """Returns the drawing as SVG."""
    drawing = new_drawing()
    stays = simulate_slots(arch)
    draw_heading(
        drawing, 40, "Slots over time", f"{SLOTS} slots of a batch in {STEPS} optimizer steps; a bar is one puzzle"
    )
    top = 64.0
    for slot in range(SLOTS):
        drawing.text(MARGIN, top + slot * ROW + 21, f"slot {slot + 1}", 14, GREY)
    for stay in stays:
        _draw_stay(drawing, stay, top)
    bottom = top + SLOTS * ROW
    for step in range(0, STEPS + 1, 4):
        x = LEFT + step * CELL
        drawing.line([(x, bottom + 2), (x, bottom + 8)], LINE)
        drawing.centred(min(x, WIDTH - MARGIN - 6), bottom + 24, str(step), 40, 13, GREY)
    drawing.text(MARGIN, bottom + 24, "step", 13, GREY)
    _draw_legend(drawing, bottom + 52, arch)
    return drawing.to_svg(bottom + 112, "Which puzzle each slot works on in each step, and when it halts")


def _draw_stay(drawing: Drawing, stay: Stay, top: float) -> None:
    color, tint = SHADES[stay.number % len(SHADES)]
    x, y = LEFT + stay.first * CELL, top + stay.slot * ROW
    width = (stay.end - stay.first) * CELL - 2
    drawing.box(x, y, width, ROW - 6, tint, color, radius=5)
    for step in stay.held:
        left = LEFT + step * CELL
        drawing.line([(left + 3, y + ROW - 11), (left + CELL - 5, y + ROW - 11)], GOOD, 2.5)
    if stay.sure is not None:
        _draw_end(drawing, x + width - 10, y + (ROW - 6) / 2, stay.sure)
    if width >= 40:
        drawing.text(x + 7, y + 20, str(stay.number), 13, color, bold=True)


def _draw_end(drawing: Drawing, x: float, y: float, is_sure: bool) -> None:
    if is_sure:
        drawing.dot(x, y, GOOD, 4.5)
    else:
        drawing.box(x - 4.5, y - 4.5, 9, 9, NEAR, SHEET, radius=0)


def _draw_legend(drawing: Drawing, y: float, arch: ArchConfig) -> None:
    middle = MARGIN + 400
    _draw_end(drawing, MARGIN + 6, y - 4, True)
    drawing.text(MARGIN + 20, y, "halts: its halting logit is above 0", 14, INK)
    _draw_end(drawing, middle + 6, y - 4, False)
    drawing.text(middle + 20, y, f"halts: it has had all of its {arch.halt_max_steps} steps", 14, INK)
    drawing.line([(MARGIN, y + 19), (MARGIN + 13, y + 19)], GOOD, 2.5)
    share = f"{arch.halt_exploration_prob:.0%}"
    drawing.text(MARGIN + 20, y + 24, f"would halt, but explores ({share} of slots per step)", 14, INK)
    drawing.text(middle + 20, y + 24, "A slot takes its next puzzle at once: no slot waits.", 14, INK)
    drawing.text(MARGIN + 20, y + 46, "Simulated: the steps that a puzzle needs are drawn at random.", 13, GREY)
