"""report.html: what a run predicted, task by task, on one page that needs no server.

The page is static.  It contains everything it shows as JSON, escaped so that no task's name can become markup.  The
script in `assets/` draws it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluators.report.theme import css_variables

ASSETS = Path(__file__).resolve().parent / "assets"
REPORT = "report.html"


def render_page(title: str, content: Mapping[str, Any]) -> str:
    """Returns the page's text.

    Args:
        content: `tasks` (see `describe_tasks`), and optionally `scores`, `conditions`, `curves`.
    """
    # Inside a script element only "<" could end it; as an escape it is the same JSON.
    data = json.dumps({"title": title, **content}, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", " ")
    html, css, js = ((ASSETS / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    for mark, value in (("/*CSS*/", css_variables() + css), ("/*JS*/", js), ("/*DATA*/", data)):
        before, _, after = html.partition(mark)
        html = before + value + after
    return html
