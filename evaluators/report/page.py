"""report.html: what a run predicted, task by task, on one page that needs no server.

The page is static.  It contains everything it shows as JSON, escaped so that no task's name can become markup.  The
scripts in `assets/` draw it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluators.report.theme import css_variables

ASSETS = Path(__file__).resolve().parent / "assets"
REPORT = "report.html"

SCRIPTS = ("grids", "judge", "headline", "gallery", "task", "start")
"""The parts of the page's script, in their order: what a part uses at once stands in an earlier one."""


def render_page(title: str, content: Mapping[str, Any]) -> str:
    """Returns the page's text.

    Args:
        content: `tasks` (see `describe_tasks`), and optionally `scores`, `conditions`, `recipe`, `curves`; of two
            runs what `describe_comparison` returns.
    """
    # Inside a script element only "<" could end it; as an escape it is the same JSON.
    data = json.dumps({"title": title, **content}, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", " ")
    html, css = ((ASSETS / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "css"))
    js = "\n".join((ASSETS / f"{part}.js").read_text(encoding="utf-8") for part in SCRIPTS)
    for mark, value in (("/*CSS*/", css_variables() + css), ("/*JS*/", js), ("/*DATA*/", data)):
        before, _, after = html.partition(mark)
        html = before + value + after
    return html
