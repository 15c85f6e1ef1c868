"""Prepares the words of a command line for Hydra, so that what the user typed is what counts.

Hydra reads a value as a number wherever it can: `tasks=[13e47133,90347967]` would be infinity and an integer.  A
setting that is a text, or a list of texts, gets what was typed.  And Hydra takes its own options in one place only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, get_args, get_origin

from hydra.core.override_parser.types import Quote, QuotedString

from utils.errors import SettingError

VALUE_OPTIONS = frozenset(
    (
        *("--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
        *("--cfg", "-c", "--info", "-i", "--experimental-rerun"),
    )
)
"""Hydra's own options that a value may follow."""

SWEEPS = frozenset(("--multirun", "-m"))
"""Hydra's options for a run per combination of values."""

OPENING, CLOSING = "[({", "])}"
QUOTES = "'\""

_FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag|extend_list|str|int|float|bool)\(.*\)", re.DOTALL)
_ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")


def text_keys(settings: Sequence[tuple[str, Any]]) -> dict[str, type]:
    """Returns the settings that are a text or a list of texts: key -> str or list.

    Args:
        settings: every key with its pydantic field.
    """
    kinds: dict[str, type] = {}
    for key, field in settings:
        types = set(get_args(field.annotation)) or {field.annotation}
        if get_origin(field.annotation) is list:
            types = {field.annotation}
        types.discard(NoneType)
        if types in ({str}, {list[str]}):
            kinds[key] = str if types == {str} else list
    return kinds


def options_first(words: Sequence[str]) -> list[str]:
    """Returns the words with Hydra's own options, and their values, before the settings, wherever they were typed."""
    options, settings, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            settings.append(word)
        elif word in VALUE_OPTIONS and rest and _is_value(rest[0]):
            options += [word, rest.pop(0)]
        else:
            options.append("--info=all" if word in ("--info", "-i") else word)  # else it would take the first setting
    return [*options, *settings]


def _is_value(word: str) -> bool:
    """Whether a word behind an option of Hydra's own is its value, and not an option or a setting."""
    return "=" not in word and not word.startswith("-")


def keep_texts(words: Sequence[str], keys: Mapping[str, type]) -> list[str]:
    """Returns the words with the values of `keys` in quotes where Hydra would read something else.

    Args:
        keys: the settings that are texts (`text_keys`).

    Raises:
        SettingError: if a bracket or a quote of a list is not closed.
    """
    sweeps = bool(SWEEPS & set(words))
    kept = []
    for word in words:
        key, equals, value = word.partition("=")
        kind = keys.get(key.lstrip("+").split("@")[0])
        if equals and kind is not None:
            value = _quote_sweep(word, value, kind) if sweeps else _quote_value(word, value, kind)
        kept.append(key + equals + value)
    return kept


def _quote_sweep(word: str, value: str, kind: type) -> str:
    """Quotes each of the values that a sweep goes through."""
    if _FUNCTION.fullmatch(value.strip()):
        return value
    return ",".join(_quote_value(word, part, kind) for part in _split(word, value))


def _quote_value(word: str, value: str, kind: type) -> str:
    stripped = value.strip()
    if kind is str:
        return stripped if stripped.lower() == "null" else quote_text(stripped)
    if stripped.lower() == "null" or stripped.startswith("${"):
        return value
    if stripped.startswith("[") and not stripped.endswith("]"):
        raise SettingError(f'{word} has no closing bracket: put quotes around the whole, as in "tasks=[a,b]"')
    inside = stripped[1:-1] if stripped.startswith("[") else stripped  # a list of one needs no brackets
    parts = list(_split(word, inside)) if inside.strip() else []
    return "[" + ",".join(quote_text(part.strip()) for part in parts) + "]"


def quote_text(text: str) -> str:
    """Returns a text as Hydra reads it back unchanged.  A text that is in quotes stays as it is."""
    if _is_quoted(text):
        return text
    return str(QuotedString(_ESCAPED.sub(r"\1", text), Quote.single).with_quotes())


def _is_quoted(text: str) -> bool:
    """Whether a text is one quoted string from its first to its last character."""
    if len(text) < 2 or text[0] not in QUOTES or text[-1] != text[0]:
        return False
    inside = re.sub(r"\\.", "", text[1:-1], flags=re.DOTALL)
    return text[0] not in inside and not re.search(r"(?<!\\)(\\\\)*\\$", text[1:-1])


def _split(word: str, value: str) -> Iterator[str]:
    """Splits at the commas that are not in quotes or brackets.

    A quote counts where a text begins with it, so that `it's` needs none.
    """
    depth, begins, quote, skips = 0, True, "", False
    last = 0
    for i, character in enumerate(value):
        if skips:
            skips = False
        elif quote:
            skips = character == "\\"
            quote = "" if character == quote else quote
        elif character == "\\":
            skips = True
        elif begins and character in QUOTES:
            quote = character
        elif character in OPENING:
            depth += 1
        elif character in CLOSING:
            depth -= 1
        elif character == "," and depth <= 0:
            yield value[last:i]
            last = i + 1
        begins = character == "," or (begins and character.isspace())
    if quote or depth > 0:
        raise SettingError(
            f"{word} has {'a quote' if quote else 'a bracket'} that is not closed: put an id with brackets or quotes "
            """in quotes of its own, as in 'tasks=["a[1",b]'"""
        )
    yield value[last:]


def size_in_words(number: float) -> str:
    """Writes a number of bytes in GB, or in MB where it is small."""
    return f"{number / 1e9:,.2f} GB" if number >= 1e8 else f"{number / 1e6:.2f} MB"
