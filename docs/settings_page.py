"""docs/settings.md: every setting with its type, default and effect, made from the models that check them.

python -m docs.settings_page               rewrites docs/settings.md
python -m docs.settings_page --check       says whether it is up to date, by its exit status
"""

from __future__ import annotations

import argparse
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
from training.config import EvalConfig, PretrainConfig
from training.launch.cli import GROUPS, ROOT, defaults_of
from training.launch.overrides import settings_of

PAGE = ROOT / "docs" / "settings.md"
COMMAND = "python -m docs.settings_page"

_PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null", dict: "mapping"}
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))

INTRODUCTION = f"""# Settings

Written by `{COMMAND}` from the models that check every setting; a test compares the two. Do not edit it by hand.

Settings of the two training scripts are written `key=value` (`+key=value` works too), those of `build_dataset.py` as
options. What the command line says wins over a recipe (`+experiment=NAME`), and a recipe over the defaults below. A
list is written `"[a,b]"`, nothing is `null`. `python SCRIPT --help` says the same in a terminal.
"""


def type_of(field: FieldInfo) -> str:
    """A field's type in words, with its bounds."""
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
    """A Markdown table of (key, field, default)."""
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
    """The page as it should be."""
    pretraining, evaluation = defaults_of("cfg_pretrain", PretrainConfig), defaults_of("cfg_eval", EvalConfig)
    fields = dict(settings_of(EvalConfig)) | dict(settings_of(PretrainConfig))
    shared = [key for key in pretraining if not key.startswith("arch.")]
    lines = [INTRODUCTION, "## Both training scripts", ""]
    lines += table((key, fields[key], pretraining[key]) for key in shared)
    differing = [key for key in shared if evaluation[key] != pretraining[key]]
    lines += ["## eval_arc_k10.py alone", ""]
    of_evaluation = dict(settings_of(EvalConfig))
    own = [key for key in evaluation if key not in pretraining]
    lines += table((key, of_evaluation[key], evaluation[key]) for key in [*differing, *own])
    lines += ["## The network: arch.*", "", "Defaults are those of `arch=trm`.", ""]
    lines += table((key, fields[key], pretraining[key]) for key in pretraining if key.startswith("arch."))
    lines += [
        *("`arch=NAME` chooses among these; where they differ from `arch=trm`:", ""),
        *("| arch= | differs in |", "|---|---|"),
    ]
    for name in GROUPS["arch"]:
        chosen = defaults_of("cfg_pretrain", PretrainConfig, f"arch={name}")
        other = [f"`{key}={_default(chosen[key])}`" for key in chosen if chosen[key] != pretraining[key]]
        lines.append(f"| `{name}` | {', '.join(other)} |")
    lines += ["", "## build_dataset.py", "", *table(_options(ArcSettings))]
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
