"""Draws one task as a PNG, with what its page shows of it.

The values are those of `evaluators.report.task_values`, the colours those of the page in its light theme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.report.task_values import SOLVED, UNKNOWN, WRONG_CELLS, WRONG_SHAPE, find_differences
from evaluators.report.theme import LIGHT
from utils.errors import InputError
from utils.files import write_atomically

WIDTH = 1700
"""Pixels of the picture's width; it is as high as its content."""

GAP = 24
TITLE, HEADING, CAPTION = 34, 26, 20
LARGEST_CELL, LARGEST_GRID = 36, 400
LONGEST_NAME = 90
BAR = (10, 240)
"""Height and width of the bar of an attempt that has all votes."""

Image = np.ndarray
"""uint8 [height, width, 3]."""

STATUS_COLOURS = {SOLVED: "good", WRONG_CELLS: "near", WRONG_SHAPE: "bad", UNKNOWN: "faint"}


def draw_task(described: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG of one task.

    Args:
        described: one item of `describe_tasks`.
        path: of the file, which is written completely or not at all.

    Raises:
        InputError: if Pillow, which draws letters and writes the file, is not installed.
    """
    save_png(lambda painter: painter.task(described), path)


def save_png(draw: Callable[[Painter], Image], path: Path) -> None:
    """Writes what a painter draws as a PNG, completely or not at all.

    Raises:
        InputError: if Pillow, which draws letters and writes the file, is not installed.
    """
    try:
        from PIL import Image as Pillow
    except ImportError:
        raise InputError('pictures need the package pillow, which is missing: pip install -e ".[pictures]"') from None
    drawn = Pillow.fromarray(draw(Painter(LIGHT)))
    write_atomically(path, lambda stream: drawn.save(stream, format="PNG", optimize=True))


class Painter:
    """Makes images of ever larger parts of a task.

    Args:
        palette: colours `#rrggbb` by name, see `evaluators.report.theme`.
    """

    def __init__(self, palette: Mapping[str, str]) -> None:
        self.palette = {name: np.array(list(bytes.fromhex(value[1:])), np.uint8) for name, value in palette.items()}
        self.signs = {str(colour): self.palette[f"c{colour}"] for colour in range(10)}
        self.signs |= {".": self.palette["ground"], "e": self.palette["line"]}

    def task(self, described: Mapping[str, Any]) -> Image:
        name = "".join(sign if sign.isprintable() else "?" for sign in described["id"])
        parts = [self.text(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…", TITLE)]
        parts.append(self.row([self.demonstration(i, pair) for i, pair in enumerate(described["train"], start=1)]))
        for i, test in enumerate(described["test"], start=1):
            parts += self.test(i, test)
        return self.framed(self.below(parts, GAP), GAP, "ground", WIDTH)

    def demonstration(self, number: int, pair: Mapping[str, str]) -> Image:
        given = self.figure(f"demonstration {number}", pair["input"], ground="raised")
        wanted = self.figure("output", pair["output"], ground="raised")
        arrow = self.framed(self.arrow(), CAPTION // 2, "raised")
        height = max(len(given), len(wanted))
        arrow = np.concatenate([self.blank((height - len(arrow)) // 2, arrow.shape[1], "raised"), arrow])
        return self.framed(self.framed(self.beside([given, arrow, wanted], 12, "raised"), 16, "raised"), 1, "line")

    def test(self, number: int, test: Mapping[str, Any]) -> list[Image]:
        truth = test["truth"]
        heading = [
            self.text(f"Test input {number}", HEADING),
            self.text(test["status"], HEADING, STATUS_COLOURS[test["status"]]),
        ]
        grids = [self.figure("input", test["input"])]
        if truth is not None:
            grids.append(self.figure("truth", truth))
        parts = [self.blank(1, 1, "ground"), self.beside(heading, GAP), self.row(grids)]
        parts.append(self.text(test["summary"], HEADING))
        if test["attempts"]:
            attempts = enumerate(test["attempts"], start=1)
            parts.append(self.row(self.attempt(n, made, test["votes"], truth) for n, made in attempts))
        if test["steps"]:
            parts.append(self.text("The answer without augmentation, after each ACT step", HEADING))
            parts.append(
                self.row(self.figure(f"step {n}", grid, truth, 0.6) for n, grid in enumerate(test["steps"], start=1))
            )
        return parts

    def attempt(self, number: int, attempt: Mapping[str, Any], votes: float, truth: str | None) -> Image:
        """Returns an attempt below its fraction of all `votes`, as a bar, and how sure the network was of it."""
        caption = f"attempt {number}: {attempt['votes']:,g} of {votes:,g} votes, {attempt['halt']:.0%} sure"
        bar = self.blank(BAR[0], BAR[1], "line")
        bar[:, : round(BAR[1] * attempt["votes"] / votes)] = self.palette["accent"]
        return self.below([self.figure(caption, attempt["grid"], truth, 0.75), bar], 12)

    def figure(
        self,
        caption: str,
        grid: str,
        truth: str | None = None,
        scale: float = 1,
        ground: str = "ground",
        cell: int | None = None,
    ) -> Image:
        """Returns a grid below its caption, in a frame if it is equal to the truth.

        Args:
            cell: pixels of a cell; None: as large as `scale` allows.
        """
        drawn = self.grid(grid, truth, scale, cell)
        if truth is not None:
            drawn = self.framed(self.framed(drawn, 4, "ground"), 4, "good" if grid == truth else "ground")
        return self.below([self.text(caption, CAPTION, "faint", ground), drawn], 8, ground)

    def grid(self, text: str, truth: str | None, scale: float, cell: int | None = None) -> Image:
        """Returns cells between lines of one pixel, with a mark on those that differ from a truth of the same shape."""
        rows = text.split("/") if text else []
        if not rows:
            return self.text("no grid", CAPTION, "faint")
        height, width = len(rows), len(rows[0])
        cell = cell or max(6, min(LARGEST_CELL, int(scale * LARGEST_GRID / max(height, width))))
        image = self.blank(height * cell + 1, width * cell + 1, "edge")
        wrong = find_differences(text, truth)
        for r, row in enumerate(rows):
            for c, sign in enumerate(row):
                square = image[r * cell + 1 : (r + 1) * cell, c * cell + 1 : (c + 1) * cell]
                square[:] = self.signs[sign]
                if (r, c) in wrong:
                    self.mark(square)
        return image

    def mark(self, square: Image) -> None:
        """Draws a dot in the middle, dark on light colours and light on dark ones (ITU-R BT.601)."""
        is_light = square[0, 0] @ (0.299, 0.587, 0.114) > 128
        first = round(0.32 * len(square))
        square[first:-first, first:-first] = self.palette["mark-on-light" if is_light else "mark-on-dark"]

    def arrow(self, ground: str = "raised") -> Image:
        """Returns an arrow to the right; its head is made of columns that become shorter."""
        height, width = 22, 30
        image = self.blank(height, width, ground)
        image[height // 2 - 1 : height // 2 + 1, :-2] = self.palette["faint"]
        for i in range(height // 2):
            image[height // 2 - i : height // 2 + i, width - 1 - i] = self.palette["faint"]
        return image

    def text(self, words: str, size: int, colour: str = "ink", ground: str = "ground") -> Image:
        from PIL import Image as Pillow
        from PIL import ImageDraw, ImageFont

        font = ImageFont.load_default(size)
        left, _, right, _ = font.getbbox(words)
        drawn = Pillow.fromarray(self.blank(int(1.3 * size), max(1, int(right - left) + 2), ground))
        ImageDraw.Draw(drawn).text((-left, 0), words, tuple(self.palette[colour].tolist()), font)
        return np.array(drawn)

    def row(self, images: Iterable[Image]) -> Image:
        """Returns images beside each other, in as many lines as the picture's width needs."""
        lines: list[list[Image]] = [[]]
        for image in images:
            used = sum(other.shape[1] + GAP for other in lines[-1])
            if lines[-1] and used + image.shape[1] > WIDTH - 2 * GAP:
                lines.append([])
            lines[-1].append(image)
        return self.below([self.beside(line, GAP) for line in lines], GAP)

    def beside(self, images: Sequence[Image], gap: int, ground: str = "ground") -> Image:
        return self.below([image.swapaxes(0, 1) for image in images], gap, ground).swapaxes(0, 1)

    def below(self, images: Sequence[Image], gap: int, ground: str = "ground") -> Image:
        width = max((image.shape[1] for image in images), default=1)
        parts: list[Image] = []
        for image in images:
            filled = self.blank(len(image), width, ground)
            filled[:, : image.shape[1]] = image
            parts += [self.blank(gap, width, ground), filled]
        return np.concatenate(parts[1:]) if parts else self.blank(1, 1, ground)

    def framed(self, image: Image, border: int, ground: str, width: int = 0) -> Image:
        """Returns the image with a border, at least `width` wide."""
        framed = self.blank(len(image) + 2 * border, max(width, image.shape[1] + 2 * border), ground)
        framed[border : border + len(image), border : border + image.shape[1]] = image
        return framed

    def blank(self, height: int, width: int, ground: str) -> Image:
        return np.broadcast_to(self.palette[ground], (max(0, height), width, 3)).copy()
