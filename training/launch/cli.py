"""Runs a torchrun script: Hydra composes the settings, they are checked, and `main` of the script gets them."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from training.config import Config
from training.launch.overrides import HYDRA_OPTIONS, check_overrides, settings_of, validate
from training.launch.texts import quote_texts
from utils import distributed, run_directory, trackers
from utils.cli import StoppedBySignal, run_command
from utils.errors import SettingError

ROOT = Path(__file__).resolve().parents[2]
CONFIG_DIR = str(ROOT / "config")
GROUPS = {
    group: sorted(path.stem for path in Path(CONFIG_DIR, group).glob("*.yaml"))
    for group in ("arch", "tracker", "experiment")
}
"""The files of each group.  Those of `experiment` are added to the defaults; of the others exactly one is chosen."""


def run_script(
    config_name: str, model: type[Config], main: Callable[[Config], None], argv: Sequence[str] | None = None
) -> int:
    """Composes `config/CONFIG_NAME.yaml` with a command line, validates it as `model` and calls `main`.

    Args:
        argv: the words of the command line after the script's name; None takes those of this process.

    Returns:
        the exit status, as `utils.cli` lists them.
    """
    words = list(sys.argv[1:] if argv is None else argv)

    def compose_and_run() -> None:
        if {"--help", "-h"} & set(words):
            print(help_text(main, config_name, model))
            return
        check_overrides(words, model, GROUPS)
        try:
            composed = compose_configs(config_name, quote_texts(words, model))
            for config in in_own_folders([validate(config, model) for config in composed]):
                main(config)
        except KeyboardInterrupt:
            raise StoppedBySignal(
                signal.SIGINT, "stopped by SIGINT; the same command continues from the last checkpoint"
            ) from None
        distributed.teardown()

    try:
        return run_command(compose_and_run)
    finally:
        trackers.close_all()
        run_directory.release_locks()


def compose_configs(config_name: str, words: Sequence[str]) -> list[DictConfig]:
    """Returns what Hydra composes from the words of a command line.

    This is one configuration; several with `--multirun`; none where an option of Hydra's own only prints something
    (`--cfg`, `--info`, `--hydra-help`).

    Raises:
        SettingError: if options of Hydra's own do not go together.
    """
    composed: list[DictConfig] = []

    @hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name=config_name)
    def keep(config: DictConfig) -> None:
        composed.append(config)

    # Hydra prints what `keep` raises in its own way, so that the script's `main` is called outside.
    with _command_line(for_hydra(options_first(words))):
        try:
            keep()
        except ValueError as error:  # options of Hydra's own that do not go together
            problem = " ".join(str(error).split())
            raise SettingError(f"Hydra refuses the options of the command line ({problem}): correct them") from None
    return composed


def in_own_folders(configs: list[Config]) -> list[Config]:
    """Returns the settings of a sweep, its runs in folders 0, 1, .. of those that several of them name."""
    named = Counter(config.checkpoint_path for config in configs if config.checkpoint_path)
    return [
        config.model_copy(update={"checkpoint_path": str(Path(config.checkpoint_path, str(number)))})
        if config.checkpoint_path and named[config.checkpoint_path] > 1
        else config
        for number, config in enumerate(configs)
    ]


def options_first(words: Sequence[str]) -> list[str]:
    """Returns the words with options of Hydra and their values first: it takes them in no other order."""
    options = [
        word.startswith("-") or before in HYDRA_OPTIONS for before, word in zip(["", *words], words, strict=False)
    ]
    pairs = list(zip(words, options, strict=True))
    return [word for word, is_option in pairs if is_option] + [word for word, is_option in pairs if not is_option]


@contextmanager
def _command_line(words: Sequence[str]) -> Iterator[None]:
    """Replaces this process's command line within the block: `hydra.main` reads it there and nowhere else."""
    before = sys.argv
    sys.argv = [before[0], *words]
    try:
        yield
    finally:
        sys.argv = before


def for_hydra(overrides: Sequence[str]) -> list[str]:
    """Returns overrides as Hydra needs them: `+arch=NAME` without its plus, and null as the name of a group's file."""
    chosen = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if key.lstrip("+") in GROUPS.keys() - {"experiment"}:
            override = key.lstrip("+") + equals + ("'null'" if value == "null" else value)
        elif override.startswith("+") and key != "+experiment":
            override = "++" + override.lstrip("+")  # Hydra's + only adds what is not there
        chosen.append(override)
    return chosen


def defaults_of(config_name: str, model: type[Config], *overrides: str) -> dict[str, Any]:
    """Returns the value of every setting, in dotted form, for a command line that consists of `overrides` alone."""
    (config,) = compose_configs(config_name, overrides)
    values = validate(config, model).model_dump(mode="json")

    def value_of(key: str) -> Any:
        value: Any = values
        for part in key.split("."):
            value = None if value is None else value[part]
        return value

    return {key: value_of(key) for key, _ in settings_of(model)}


def help_text(main: Callable[..., None], config_name: str, model: type[Config]) -> str:
    """Returns the docstring of a script, then every setting with its default and meaning."""
    defaults = defaults_of(config_name, model)
    lines = [str(sys.modules[main.__module__].__doc__ or "").strip(), "", "Settings, as key=value:"]
    for key, field in settings_of(model):
        meaning = f"  {field.description}" if field.description else ""
        lines.append(f"  {key + '=' + json.dumps(defaults[key]):<42}{meaning}")
    lines += ["", *(f"{group}=  {', '.join(names)}" for group, names in GROUPS.items() if group != "experiment")]
    lines += [f"+experiment=  {', '.join(GROUPS['experiment'])}", "", "Hydra's own options: --hydra-help"]
    return "\n".join(lines)
