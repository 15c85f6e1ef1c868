"""The commands that README.md and docs/ show: found, and parsed or run as a user would.

`tests/project/test_commands.py` runs them.  A command is parsed by the program's own parser, and run in this
process, which saves the seconds that starting one takes; settings that make it small are added at its end.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hydra import compose, initialize_config_dir
from torch.distributed.run import get_args_parser

from tests.conftest import ROOT
from training.config import EvalConfig, PretrainConfig, RunConfig
from training.launch.cli import CONFIG_DIR, GROUPS, for_hydra, run_script
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


class _Parsed(Exception):
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
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
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
    place = module.replace(".", "/")
    programs = (ROOT / f"{place}.py", ROOT / place / "__main__.py")
    assert any(program.is_file() for program in programs), f"there is no module {module}"
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
            with mock.patch.dict(build_dataset.KINDS, kinds):
                call([script, *words], build_dataset.main)
        else:
            call([script or module, *words], None if script is None else str(ROOT / script))
        return
    # It parsed without end: nothing stopped it, which only --help may do.


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


def call(argv: list[str], program: Any) -> str:
    """Runs a program in this process: a function, a file's path, or the module that argv names.  Returns what it said.

    Raises:
        AssertionError: with what it said, if it ended with another status than 0.
    """
    said = io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with (
            mock.patch.object(sys, "argv", argv),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            warnings.catch_warnings(),
        ):
            # A test has imported what is run here as a program; both are whole.
            warnings.filterwarnings("ignore", r"'[\w.]+' found in sys.modules after import", RuntimeWarning)
            if callable(program):
                program()
            elif program is None:
                runpy.run_module(argv[0], run_name="__main__", alter_sys=False)
            else:
                runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if end.code not in (0, None):
            raise AssertionError(f"{shlex.join(argv)} ended with {end.code!r}:\n{said.getvalue()}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    return said.getvalue()


def execute(words: list[str]) -> str:
    """Runs a command that `parse` has taken, one rank in place of several, in the working directory."""
    program, *words = words
    if program.endswith("torchrun"):
        given = get_args_parser().parse_args(words)
        words = [given.training_script, *given.training_script_args]
    if words[0] == "-m":
        return call(words[1:], None)
    if words[0] in SCRIPTS:
        script = importlib.import_module(words[0].removesuffix(".py"))
        config_name, model = SCRIPTS[words[0]]
        return call(words, lambda: run_script(config_name, model, script.main))
    return call(words, str(ROOT / words[0]))
