"""A few shapes of SVG: enough for boxes, text and arrows."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

INK, GREY, LINE = "#1f2937", "#5b6675", "#8a94a3"
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"


class Drawing:
    """Collects shapes on an opaque sheet, which is readable on light and dark pages."""

    def __init__(self, width: float) -> None:
        self.width = width
        self._shapes: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, fill: str, stroke: str, radius: float = 8) -> None:
        """Draws a rounded rectangle; (x, y) is its top left corner."""
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

    def dot(self, x: float, y: float, color: str) -> None:
        """Draws a small disc around (x, y)."""
        self._shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="3.5" fill="{color}"/>')

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
                '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
                f'orient="auto"><path d="M0,0.5 L7.5,4 L0,7.5 z" fill="{LINE}"/></marker></defs>',
                f'<rect x="0.5" y="0.5" width="{self.width - 1:g}" height="{height - 1:g}" rx="14" '
                'fill="#ffffff" stroke="#d5dae1"/>',
                *self._shapes,
                "</svg>",
                "",
            ]
        )


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
