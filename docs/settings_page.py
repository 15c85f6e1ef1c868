"""Writes docs/settings.md: every setting with its type, default and effect, from the classes that check them.

python -m docs.settings_page               writes docs/settings.md
python -m docs.settings_page --check       tells by its exit status whether the page is up to date
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dataset.build.grid_puzzles import MazeSettings, SudokuSettings
from dataset.build.settings import ArcSettings
from dataset.build.sources import Source
from training.config import EvalConfig, PretrainConfig, RunConfig, section_of
from training.config.sections import NetworkSettings
from training.launch.cli import GROUPS, ROOT, defaults_of
from training.launch.overrides import settings_of

PAGE = ROOT / "docs" / "settings.md"
COMMAND = "python -m docs.settings_page"

_PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null", dict: "mapping"}
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))

INTRODUCTION = f"""# Settings

`{COMMAND}` writes this page from the classes that check every setting, and a test compares the two. Do not edit it.

Settings of the two training scripts are written `key=value` (`+key=value` works too), those of `build_dataset.py` as
options. The command line wins over a recipe (`+experiment=NAME`), and a recipe wins over the defaults below. A list is
written `"[a,b]"`, and `null` means no value. `python SCRIPT --help` prints the same in a terminal.
"""


def type_of(field: FieldInfo) -> str:
    """Returns a field's type in words, with its bounds."""
    bounds = " and ".join(
        f"{sign} {getattr(constraint, name):g}"
        for name, sign in _BOUNDS
        for constraint in field.metadata
        if hasattr(constraint, name)
    )
    return f"{_words(field.annotation)} {bounds}".strip()


def _words(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        # null first, so that bounds stand beside what they bound
        return " or ".join(_words(a) for a in sorted(arguments, key=lambda a: a is not type(None)))
    if origin is Literal:
        return ", ".join(f"`{json.dumps(value) if not isinstance(value, str) else value}`" for value in arguments)
    if origin in (list, tuple):
        return f"list of {_words(arguments[0])}"
    if origin is dict:
        return "mapping"
    return _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def table(rows: Iterable[tuple[str, FieldInfo, Any]]) -> list[str]:
    """Returns the lines of a Markdown table.

    Args:
        rows: key, field and default of each setting.
    """
    lines = ["| setting | type | default | effect |", "|---|---|---|---|"]
    for key, field, default in rows:
        shown = "needed" if default is PydanticUndefined else f"`{_default(default)}`"
        lines.append(f"| `{key}` | {_cell(type_of(field))} | {shown} | {_cell(field.description or '')} |")
    return [*lines, ""]


def _default(value: Any) -> str:
    if isinstance(value, str):
        return value or '""'
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _options(model: type[BaseModel]) -> list[tuple[str, FieldInfo, Any]]:
    return [
        ("--" + name.replace("_", "-"), field, field.get_default(call_default_factory=True))
        for name, field in model.model_fields.items()
    ]


def page() -> str:
    """Returns the page as it should be."""
    lines = [INTRODUCTION]
    lines += ["## Both training scripts", "", *_topics("cfg_pretrain", PretrainConfig, without=None)]
    lines += ["## eval_arc_k10.py alone", "", *_topics("cfg_eval", EvalConfig, without=PretrainConfig)]
    lines += _network()
    lines += ["## build_dataset.py", "", *table(_options(ArcSettings))]
    lines += [
        "### A source of --sources",
        "",
        "`WHERE,OPTION=VALUE,..` or an entry of a YAML file; see [data.md](data.md).",
        "",
    ]
    lines += table(
        (field.alias or name, field, field.get_default(call_default_factory=True))
        for name, field in Source.model_fields.items()
    )
    for kind, model in (("sudoku", SudokuSettings), ("maze", MazeSettings)):
        lines += [f"## build_dataset.py {kind}", "", *table(_options(model))]
    return "\n".join(lines).rstrip() + "\n"


def _topics(config_name: str, model: type[RunConfig], without: type[RunConfig] | None) -> list[str]:
    """A table for each topic of a script's settings.

    Args:
        without: leave out the settings that this class has too, with the same default.
    """
    defaults, lines = defaults_of(config_name, model), list[str]()
    known = {} if without is None else {name: field.default for name, field in without.model_fields.items()}
    for section in dict.fromkeys(section_of(model, name) for name in model.model_fields):
        rows = [
            (key, field, defaults[key])
            for key, field in settings_of(model)
            if (name := key.split(".")[0]) in section.model_fields
            and section is not NetworkSettings
            and not (name in known and known[name] == model.model_fields[name].default)
        ]
        if rows:
            meaning = inspect.cleandoc(section.__doc__ or "")
            lines += [f"### {section.topic}", "", meaning, "", *table(rows)]
    return lines


def _network() -> list[str]:
    defaults = defaults_of("cfg_pretrain", PretrainConfig)
    arch = [(key, field) for key, field in settings_of(PretrainConfig) if key.startswith("arch.")]
    lines = [
        "## The network: arch.*",
        "",
        "The defaults are those of `arch=trm`. In both scripts `arch.puzzle_emb_ndim` follows `arch.hidden_size` "
        "unless it is set.",
        "",
    ]
    lines += table((key, field, defaults[key]) for key, field in arch)
    lines += ["`arch=NAME` chooses one of these:", "", "| arch= | other defaults than `arch=trm` |", "|---|---|"]
    for name in GROUPS["arch"]:
        chosen = defaults_of("cfg_pretrain", PretrainConfig, f"arch={name}")
        other = [f"`{key}={_default(chosen[key])}`" for key in chosen if chosen[key] != defaults[key]]
        lines.append(f"| `{name}` | {', '.join(other)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where the page is out of date")
    given = parser.parse_args()
    wanted = page()
    shown = Path(PAGE).relative_to(ROOT)
    if given.check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != wanted:
            sys.exit(f"error: {shown} is out of date: {COMMAND}")
        print(f"{shown} is up to date")
        return
    PAGE.write_text(wanted, encoding="utf-8")
    print(shown)


if __name__ == "__main__":
    main()
