"""docs/guides/troubleshooting.md quotes messages that the code has."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.builders.programs import ROOT
from tests.builders.sources import SOURCES, tree

PAGE = (ROOT / "docs" / "guides" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTES = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)


@cache
def strings() -> list[str]:
    """Every string of the sources, `…` where a value is put in."""
    found = []
    for source in SOURCES:
        for node in ast.walk(tree(source)):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_message_exists(quote: str) -> None:
    assert len(quote.replace("…", "").strip()) >= 12, "too short a quote to tell messages apart"
    assert any(quote.strip("… ") in text for text in strings()), (
        "no message of the code reads like this any more: quote it anew"
    )


def test_every_part_of_the_page_quotes() -> None:
    parts = [part for part in PAGE.split("\n## ")[1:] if not part.startswith("From elsewhere")]
    assert len(parts) >= 5 and all("| `" in part for part in parts)
    assert len(QUOTES) == len(set(QUOTES)) > 30
