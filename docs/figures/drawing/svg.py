"""A few shapes of SVG: enough for boxes, text, arrows and grids, in the colours of a light and of a dark page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from xml.sax.saxutils import escape

INK, GREY, LINE = "#1f2937", "#5b6675", "#8a94a3"
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"


class Drawing:
    """Collects shapes on an opaque sheet, which follows the reader's choice of a light or a dark page.

    Shapes are given the colours of the light sheet.  A style sheet in the file replaces them on a dark page, so that a
    viewer without style sheets shows the light one.

    Args:
        dark: the dark colour of each light one, both `#rrggbb`; the other colours are the same on both.
    """

    def __init__(self, width: float, dark: Mapping[str, str]) -> None:
        self.width = width
        self.dark = dark
        self._shapes: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, fill: str, stroke: str, radius: float = 8) -> None:
        """Draws a rounded rectangle; (x, y) is its top left corner.  fill, stroke: a colour or `none`."""
        self._shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )

    def text(self, x: float, y: float, words: str, size: float = 12, color: str = INK, bold: bool = False) -> None:
        """Writes one line; y is its baseline, x its left end."""
        style = f'font-size="{size:g}" fill="{color}"' + (' font-weight="600"' if bold else "")
        self._shapes.append(f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>')

    def centred(
        self, x: float, y: float, words: str, width: float, size: float = 12, color: str = INK, bold: bool = False
    ) -> None:
        """Writes one line around x, in smaller letters if it would be wider than `width`."""
        size = round(size * min(1, width / text_width(words, size, bold)), 1) if words else size
        style = f'font-size="{size:g}" fill="{color}" text-anchor="middle"' + (' font-weight="600"' if bold else "")
        self._shapes.append(f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>')

    def dot(self, x: float, y: float, color: str, radius: float = 3.5) -> None:
        """Draws a small disc around (x, y)."""
        self._shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{color}"/>')

    def cells(self, x: float, y: float, rows: Sequence[str], cell: float, colors: Mapping[str, str], edge: str) -> None:
        """Draws a grid; (x, y) is its top left corner.

        Args:
            rows: a sign per cell.
            cell: the side of a cell with the line beside it.
            colors: of each sign.
            edge: the colour of the lines, of one unit, between cells and around all.
        """
        x, y = round(x), round(y)
        width, height = cell * len(rows[0]) + 1, cell * len(rows) + 1
        self._shapes.append(f'<rect x="{x}" y="{y}" width="{width:g}" height="{height:g}" fill="{edge}"/>')
        runs: dict[str, str] = {}  # of equal cells in a row, each a thick line
        for r, row in enumerate(rows):
            first = 0
            for sign, run in groupby(row):
                length = len(list(run))
                start = f"M{x + 1 + first * cell:g} {y + 0.5 + (r + 0.5) * cell:g}h{length * cell - 1:g}"
                runs[colors[sign]] = runs.get(colors[sign], "") + start
                first += length
        self._shapes += [
            f'<path d="{path}" stroke="{color}" stroke-width="{cell - 1:g}"/>' for color, path in runs.items()
        ]
        between = "".join(f"M{x + c * cell + 0.5:g} {y}v{height:g}" for c in range(1, len(rows[0])))
        self._shapes.append(f'<path d="{between}" stroke="{edge}"/>')

    def line(self, points: Sequence[tuple[float, float]], color: str, width: float = 1, dash: str = "") -> None:
        """Draws a line through the points.  dash: lengths of strokes and gaps, such as `4 3`."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._shapes.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width:g}"{dashes}/>'
        )

    def area(self, points: Sequence[tuple[float, float]], color: str, opacity: float) -> None:
        """Fills what the points enclose."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._shapes.append(f'<polygon points="{path}" fill="{color}" fill-opacity="{opacity:g}"/>')

    def arrow(self, *points: tuple[float, float]) -> None:
        """Draws a line through the points with a head at the last one."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._shapes.append(
            f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="1.6" '
            'stroke-linejoin="round" marker-end="url(#head)"/>'
        )

    def to_svg(self, height: float, title: str) -> str:
        """Returns the whole file."""
        size = f"{self.width:g} {height:g}"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{self.width:g}" '
                f'height="{height:g}" font-family="{FONT}" role="img">',
                f"<title>{escape(title)}</title>",
                f"<style>{self._dark_style()}</style>",
                '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
                f'orient="auto"><path d="M0,0.5 L7.5,4 L0,7.5 z" fill="{LINE}"/></marker></defs>',
                f'<rect x="0.5" y="0.5" width="{self.width - 1:g}" height="{height - 1:g}" rx="14" '
                'fill="#ffffff" stroke="#d5dae1"/>',
                *self._shapes,
                "</svg>",
                "",
            ]
        )

    def _dark_style(self) -> str:
        """Returns rules for each colour of the shapes that is another one on a dark page, also with an opacity."""
        used = sorted(set(re.findall(r'"(#[0-9a-f]{6})([0-9a-f]{2})?"', "".join(self._shapes))))
        used = sorted({*used, ("#ffffff", ""), ("#d5dae1", ""), (LINE, "")})  # the sheet, and the heads of arrows
        rules = [
            f'[{what}="{light}{opacity}"]{{{what}:{self.dark[light]}{opacity}}}'
            for light, opacity in used
            if light in self.dark
            for what in ("fill", "stroke")
        ]
        return f"@media (prefers-color-scheme: dark){{{''.join(rules)}}}"


def text_width(words: str, size: float, bold: bool = False) -> float:
    """Returns how wide a line is in a wide font; in others it is narrower."""
    narrow = sum(letter in "ijlt.,:;|/()· f" for letter in words)
    return size * (0.62 * (len(words) - narrow) + 0.36 * narrow) * (1.18 if bold else 1)


def wrapped(words: Sequence[str], between: str, width: float, size: float) -> list[str]:
    """Returns the words in as few lines as fit the width."""
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]}{between}{word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
