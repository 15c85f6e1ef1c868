"""Keeps texts of a command line as they were typed.

Hydra reads every value by its own grammar: `13e47133` is infinity there, `20260101` a number, and a comma or an equals
sign is an error.  A setting that is a text means what was typed, so its value is quoted before Hydra reads it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import NoneType
from typing import Any, Literal, get_args

from pydantic import BaseModel

from training.launch.overrides import settings_of

HYDRAS_OWN = re.compile(r"\$\{|(choice|range|interval|glob|shuffle|sort|tag|str|extend_list)\(")
"""How values begin that are for Hydra to read: references, sweeps, functions."""


def quote_texts(words: Sequence[str], model: type[BaseModel]) -> list[str]:
    """Returns the words of a command line with the values of texts and of lists of texts in quotes.

    `null`, values in quotes, references `${..}` and Hydra's functions stay as they are.  With `--multirun` a comma
    separates the values of a sweep.
    """
    kinds = {key: kind for key, field in settings_of(model) if (kind := _kind_of(field.annotation)) is not None}
    sweeps = bool({"--multirun", "-m"} & set(words))
    return [_quoted(word, kinds, sweeps) for word in words]


def _kind_of(annotation: Any) -> Literal["text", "texts"] | None:
    members = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType]
    if annotation == list[str] or members == [list[str]]:
        return "texts"
    return "text" if members == [str] else None


def _quoted(word: str, kinds: dict[str, Literal["text", "texts"]], sweeps: bool) -> str:
    key, equals, value = word.partition("=")
    kind = kinds.get(key.lstrip("+"))
    if kind is None or not equals or not value or word.startswith("-"):
        return word
    if kind == "text":
        parts = _split(value) if sweeps else [value]
        return f"{key}={','.join(map(_quote, parts))}"
    lists = _split(value) if sweeps else [value]
    return f"{key}={','.join(map(_quote_list, lists))}"


def _quote_list(value: str) -> str:
    """Quotes the items of a list; anything else is left to Hydra."""
    if not (value.startswith("[") and value.endswith("]")):
        return value
    items = [item.strip() for item in _split(value[1:-1])]
    return f"[{','.join(map(_quote, items))}]" if items != [""] else "[]"


def _quote(text: str) -> str:
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if is_quoted or text.lower() == "null" or HYDRAS_OWN.match(text):
        return text
    # Within quotes a backslash counts as one unless quotes follow it.
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def _split(text: str) -> list[str]:
    """Splits at the commas that stand neither in quotes nor in brackets."""
    parts, depth, quotes = [""], 0, ""
    for character in text:
        if quotes:
            quotes = "" if character == quotes else quotes
        elif character in "'\"" and not parts[-1].strip("[ "):
            quotes = character
        elif character in "[({":
            depth += 1
        elif character in "])}":
            depth -= 1
        if character == "," and not quotes and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
