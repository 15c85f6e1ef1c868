"""The commands that README.md and docs/ show: found, and parsed or run as a user would.

`tests/project/test_commands.py` runs them.  A command is parsed by the program's own parser, and run in this
process, which saves the seconds that starting one takes; settings that make it small are added at its end.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hydra import compose, initialize_config_dir
from torch.distributed.run import get_args_parser

from tests.builders.programs import ROOT, run_here
from training.config import EvalConfig, PretrainConfig, RunConfig
from training.launch.cli import CONFIG_DIR, GROUPS, for_hydra
from training.launch.overrides import check_overrides, validate

SHELL = ("", "sh", "bash", "console")
SCRIPTS: dict[str, tuple[str, type[RunConfig]]] = {
    "pretrain_no_eval.py": ("cfg_pretrain", PretrainConfig),
    "eval_arc_k10.py": ("cfg_eval", EvalConfig),
}
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@dataclass(frozen=True)
class Command:
    """where: file and line.  inline: in a sentence, where a command may stand for many and is only parsed."""

    where: str
    words: tuple[str, ...]
    inline: bool = False

    @property
    def text(self) -> str:
        return shlex.join(self.words)


class NotUnderstoodError(Exception):
    """A command that is no command of this project, with the sentence that says so."""


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, language, text) of each fenced block."""
    text = path.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text[: match.start()].count("\n") + 2, match[1], match[2]


def commands_of(path: Path) -> list[Command]:
    """Every command of a document: the lines of its shell blocks, and the code in its sentences that begins as one."""
    name = str(path.relative_to(ROOT))
    found = []
    for line, language, text in blocks(path):
        if language not in SHELL:
            continue
        # Continued lines become one.  A comment runs to the end of the line.
        for row in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
            try:
                words = shlex.split(row.removeprefix("$ "), comments=True)
            except ValueError:  # no shell's; `parse` says so
                words = row.split()
            if words:
                found.append(Command(f"{name}, block of line {line}", tuple(words)))

    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`((?:python3?|torchrun|make|pip|sbatch) [^`]+)`", prose):
        if not re.search(r"\bSCRIPT\b|\.\.(?!/)|…|--version", code):  # one that stands for any
            found.append(Command(f"{name}, `{code}`", tuple(shlex.split(code)), inline=True))
    return found


def overrides_are_settings(script: str, overrides: list[str]) -> None:
    """Raises ValueError for what the script would refuse before it looks at any file."""
    config_name, model = SCRIPTS[script]
    check_overrides(overrides, model, GROUPS)
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        # What is no assignment is an option of Hydra's own, or its value.
        validate(compose(config_name, overrides=for_hydra([word for word in overrides if "=" in word])), model)


class _Parsed(BaseException):
    """The program's own parser took the command line."""


def parse(command: Command) -> None:
    """Whether the programs would take the command line, and what it names is there.

    Raises:
        NotUnderstoodError: for a program that is not known here.
        ValueError, SystemExit: as the program would refuse it.
    """
    program, *words = command.words
    program = program.removeprefix(".venv/bin/")
    if program == "torchrun":
        given = get_args_parser().parse_args(words)
        program, words = "python", [given.training_script, *given.training_script_args]
    if program in ("python", "python3") and words[:1] == ["-m"]:
        _parse_module(words[1], words[2:])
    elif program in ("python", "python3") and words and words[0] in SCRIPTS:
        overrides_are_settings(words[0], words[1:])
    elif program in ("python", "python3") and words and (ROOT / words[0]).is_file():
        _parse_program(words[0], words[1:])
    elif program == "pip":
        _parse_pip(words)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        if unknown := [word for word in words if "=" not in word and word not in targets]:
            raise ValueError(f"the Makefile has no target {unknown[0]!r}")
    elif program == "sbatch":
        job, *overrides = [word for word in words if not word.startswith("--")]
        subprocess.run(["bash", "-n", str(ROOT / job)], check=True)
        (script,) = [name for name in SCRIPTS if name in (ROOT / job).read_text(encoding="utf-8")]
        overrides_are_settings(script, overrides)
    else:
        raise NotUnderstoodError(
            f"{command.where}: {command.text!r} is no command that tests/builders/commands.py knows: teach it there, "
            "or write "
            "```text where a block holds no commands"
        )


def _parse_module(module: str, words: list[str]) -> None:
    if module in ("pip", "venv", "pytest"):
        if module == "pip":
            _parse_pip(words)
        return
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"there is no module {module}"
    _parse_program(None, words, module)


def _parse_program(script: str | None, words: list[str], module: str = "") -> None:
    """Lets a program parse its command line and stops it there."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop_after(self: argparse.ArgumentParser, *args: Any, **more: Any) -> None:
        parse_args(self, *args, **more)
        raise _Parsed

    def stop(*_: Any) -> None:
        raise _Parsed

    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop_after), contextlib.suppress(_Parsed):
        if script == "build_dataset.py":
            import build_dataset

            kinds = {kind: (model, stop, said) for kind, (model, _, said) in build_dataset.KINDS.items()}
            with mock.patch.dict(build_dataset.KINDS, kinds), mock.patch.object(sys, "argv", [script, *words]):
                build_dataset.main()
        else:
            call([script, *words] if script else ["-m", module, *words])
    # Where nothing stops it, it has parsed its words and come to its end, as with --help.


def _parse_pip(words: list[str]) -> None:
    if words[0] == "wheel":  # for a machine that has PyTorch and NumPy
        named = {word.strip("\"'") for word in words[1:] if not word.startswith("-")}
        needed = {wanted for wanted in PROJECT["dependencies"] if not re.match(r"(torch|numpy)\b", wanted)}
        if differ := named ^ needed:
            raise ValueError(f"the dependencies of pyproject.toml and of the command differ in {sorted(differ)}")
        return
    extras = {extra for group in re.findall(r"\.\[([\w,]+)\]", " ".join(words)) for extra in group.split(",")}
    if unknown := extras - set(PROJECT["optional-dependencies"]):
        raise ValueError(f"pyproject.toml has no extra {sorted(unknown)[0]!r}")


def call(words: list[str]) -> str:
    """Runs a program in this process, in the working directory, and returns what it printed.

    Raises:
        AssertionError: with what it printed, if it ended with another status than 0.
    """
    done = run_here(words)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, f"{shlex.join(words)} ended with {done.returncode}:\n{printed}"
    return printed


def execute(words: list[str]) -> str:
    """Runs a command that `parse` has taken, one rank in place of several, in the working directory."""
    program, *words = words
    if program.endswith("torchrun"):
        given = get_args_parser().parse_args(words)
        words = [given.training_script, *given.training_script_args]
    return call(words)
