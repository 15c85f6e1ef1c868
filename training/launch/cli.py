"""The door of the torchrun scripts: Hydra composes, `training.config` checks, errors become one sentence."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from training.config import Config
from training.launch.overrides import check_overrides, settings_of, validate
from training.loop import Interrupted
from utils import distributed, trackers

ROOT = Path(__file__).resolve().parents[2]
CONFIG_DIR = str(ROOT / "config")
GROUPS = {
    group: sorted(path.stem for path in Path(CONFIG_DIR, group).glob("*.yaml"))
    for group in ("arch", "tracker", "experiment")
}
"""The files of each group; those of `experiment` are added to the defaults, of the others one is always chosen."""

EXIT_BAD_INPUT = 2
"""Exit status where settings, data or a checkpoint are not usable as given."""

SECONDS_FOR_RANK_0 = 5.0


def run_script(config_name: str, model: type[Config], main: Callable[[Config], None]) -> None:
    """Composes `config/CONFIG_NAME.yaml` with the command line, validates it as `model` and calls `main`.

    A ValueError or OSError ends the program with its message and status 2, a signal with 128 + its number (143 for
    SIGTERM, 130 for SIGINT); anything else is a bug and keeps its traceback.
    """

    composed: list[DictConfig] = []

    # Hydra prints what is raised inside its decorator as it likes, so that it only composes there.
    @hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name=config_name)
    def keep(config: DictConfig) -> None:
        composed.append(config)

    if set(sys.argv[1:]) & {"--help", "-h"}:
        print(help_text(main, config_name, model))
        return
    status = 0
    try:
        check_overrides(sys.argv[1:], model, GROUPS)
        given, sys.argv[1:] = sys.argv[1:], for_hydra(sys.argv[1:])
        keep()
        sys.argv[1:] = given
        for config in composed:
            main(validate(config, model))
        distributed.teardown()
    except (ValueError, OSError) as error:
        if isinstance(error, ValueError) and not _is_ours(error):
            raise
        _say(f"error: {error}")
        status = EXIT_BAD_INPUT
    except Interrupted as stop:
        _say(str(stop))
        status = 128 + stop.signal
    except KeyboardInterrupt:
        _say("stopped by SIGINT; what was saved is on the disk, and the same command goes on from there")
        status = 128 + signal.SIGINT
    _leave(status)


def _leave(status: int) -> None:
    """Ends the program.  One rank of several leaves without taking the interpreter apart: Gloo's threads may still run
    then, which now and then aborts a process whose work is done and on the disk (PyTorch 2.13)."""
    trackers.close_all()
    if distributed.is_launched():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def for_hydra(overrides: list[str]) -> list[str]:
    """Overrides as Hydra wants them: `+arch=NAME` without its plus, and null as the name of a group's file."""
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
    """What every setting, in dotted form, is where a command line says nothing but `overrides`."""
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        values = validate(compose(config_name, overrides=list(overrides)), model).model_dump(mode="json")

    def value_of(key: str) -> Any:
        found: Any = values
        for part in key.split("."):
            found = None if found is None else found[part]
        return found

    return {key: value_of(key) for key, _ in settings_of(model)}


def help_text(main: Callable[..., None], config_name: str, model: type[Config]) -> str:
    """What a script says of itself, then every setting with its default and meaning."""
    defaults = defaults_of(config_name, model)
    lines = [str(sys.modules[main.__module__].__doc__ or "").strip(), "", "Settings, as key=value:"]
    for key, field in settings_of(model):
        meaning = f"  {field.description}" if field.description else ""
        lines.append(f"  {key + '=' + json.dumps(defaults[key]):<42}{meaning}")
    lines += ["", *(f"{group}=  {', '.join(names)}" for group, names in GROUPS.items() if group != "experiment")]
    lines += [f"+experiment=  {', '.join(GROUPS['experiment'])}", "", "Hydra's own options: --hydra-help"]
    return "\n".join(lines)


def _is_ours(error: ValueError) -> bool:
    """Whether this project raised it; what a library raises is a bug here, and keeps its traceback."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return False
    raised_in = Path(frame.tb_frame.f_code.co_filename)
    return raised_in.is_relative_to(ROOT) and "site-packages" not in raised_in.parts  # .venv lies in the repository


def _say(sentence: str) -> None:
    """Prints the sentence once.  What one rank refuses all of them do, and torchrun ends the rest as soon as one has
    ended: the others leave rank 0 the time to speak, and speak for themselves if they are then still there."""
    if distributed.is_main():
        print(sentence, file=sys.stderr, flush=True)
    else:
        time.sleep(SECONDS_FOR_RANK_0)
        print(f"rank {distributed.rank()}: {sentence}", file=sys.stderr, flush=True)
