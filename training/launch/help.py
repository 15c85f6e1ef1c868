"""Explains the settings of a torchrun script in a terminal: `--help`, and `--help WORD` for some of them whole."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from training.config import section_of
from training.launch.overrides import settings_of
from utils.errors import SettingError

COLUMN = 36
"""Where meanings begin; a longer setting has its meaning on the next line."""

WIDEST = 110


def help_text(
    about: str, model: type[BaseModel], defaults: Mapping[str, Any], groups: Mapping[str, list[str]], word: str = ""
) -> str:
    """Returns what a script is for, then its settings by topic, each with its default and a line of meaning.

    Args:
        about: the docstring of the script, with its commands.
        defaults: the value of every setting, by key.
        groups: the files of each group of the configuration.
        word: show only settings that have it in their name, topic or meaning, and these whole.

    Raises:
        SettingError: if no setting has the word.
    """
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    topics: dict[str, list[str]] = {}
    for key, field in settings_of(model):
        topic = topic_of(key, model)
        meaning = field.description or ""
        if word.lower() in f"{key} {topic} {meaning}".lower():
            topics.setdefault(topic, []).append(_line(f"{key}={_as_typed(defaults[key])}", meaning, width, bool(word)))
    if not topics:
        raise SettingError(f"--help {word}: no setting has this word: python SCRIPT --help lists all of them")
    listed = [line for topic, lines in topics.items() for line in ("", topic, *lines)]
    if word:
        return "\n".join(listed[1:])
    return "\n".join([about.strip(), *_introduction(groups, width), *listed])


def topic_of(key: str, model: type[BaseModel]) -> str:
    """Returns the heading of a setting: the topic of its section, or the group that it is a part of."""
    first, dot, _ = key.partition(".")
    return {"arch": "The network", "tracker": "Tracker"}.get(first, first) if dot else section_of(model, key).topic


def _as_typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _introduction(groups: Mapping[str, list[str]], width: int) -> list[str]:
    def wrap(text: str) -> str:
        return textwrap.fill(text, width, break_long_words=False)

    recipes = ", ".join(groups["experiment"])
    others = "; ".join(f"{group}={'|'.join(names)}" for group, names in groups.items() if group != "experiment")
    return [
        "",
        wrap("Settings are written key=value; the command line wins over a recipe, a recipe over the defaults below."),
        wrap(f"Recipes, as +experiment=NAME: {recipes}."),
        wrap(f"Choices of several settings at once: {others}."),
        wrap("--help WORD explains the settings with that word in full, dry_run=true shows the plan of a run."),
        wrap("docs/settings.md has all of them with types and bounds; --hydra-help lists Hydra's own options."),
    ]


def _line(setting: str, meaning: str, width: int, whole: bool) -> str:
    start = f"  {setting:<{COLUMN - 3}} " if len(setting) <= COLUMN - 3 else f"  {setting}\n{'':<{COLUMN}}"
    room = width - COLUMN
    lines = textwrap.wrap(meaning, room) if whole else [textwrap.shorten(meaning, room, placeholder=" ..")]
    return start + f"\n{'':<{COLUMN}}".join(lines)
