"""The colours of the page and of pictures."""

from __future__ import annotations

from collections.abc import Mapping

from dataset.encoding import ARC_COLOURS

GRID_COLOURS = {f"c{number}": colour.lower() for number, colour in enumerate(ARC_COLOURS)} | {
    "edge": "#55554f",
    "mark-on-dark": "#ffffff",
    "mark-on-light": "#000000",
}
"""Colours of cells, of the lines between them and of the marks on wrong ones."""

LIGHT = GRID_COLOURS | {
    "ground": "#fafaf8",
    "raised": "#ffffff",
    "ink": "#1c1c1a",
    "faint": "#6b6b66",
    "line": "#dcdcd6",
    "accent": "#0b63ce",
    "good": "#1a7f37",
    "fair": "#0b7285",
    "near": "#9a6700",
    "bad": "#c02a2a",
}
"""The light theme, in which pictures are drawn too: colours `#rrggbb` by name."""

DARK = LIGHT | {
    "edge": "#8a8a82",
    "ground": "#161614",
    "raised": "#1f1f1c",
    "ink": "#ecece6",
    "faint": "#9d9d95",
    "line": "#3a3a35",
    "accent": "#6cb0ff",
    "good": "#56d364",
    "fair": "#4dc4d9",
    "near": "#e3b341",
    "bad": "#ff7b72",
}


def css_variables() -> str:
    """Returns both themes as CSS: the page follows the reader's setting."""
    return (
        f":root {{ color-scheme: light dark; {_declare(LIGHT)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {_declare(DARK)} }} }}\n"
    )


def _declare(colours: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
