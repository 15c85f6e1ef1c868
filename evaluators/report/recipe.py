"""Reads from a run's folder what it trained, how and for how long."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIG, VERSIONS = "config.yaml", "versions.json"
"""The files of a run's folder (utils/run_directory.py, which loads PyTorch) that are read here."""

PLACES = ("checkpoint_path", "run_name", "project_name", "tracker")
"""Settings that say where a run writes, and not what it does."""


def read_settings(run: Path) -> dict[str, Any]:
    """Returns the settings of a run by their names on the command line, such as `arch.hidden_size`; empty if its
    folder does not have them."""
    try:
        settings = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return _flatten(settings) if isinstance(settings, dict) else {}


def describe_recipe(run: Path, step: int, log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns in words what a run did; what its folder does not tell is left out.

    Args:
        step: that was evaluated.
        log: the lines of its `metrics.jsonl`.

    Returns:
        `network`, `training`, `command` as text; `seconds` of its training steps, without evaluations.
    """
    settings = read_settings(run)
    described = {
        "network": _describe_network(settings),
        "training": _describe_training(settings, step),
        "seconds": training_seconds(log, settings.get("global_batch_size"), step),
        "command": _read_command(run),
    }
    return {name: value for name, value in described.items() if value is not None}


def training_seconds(log: Sequence[Mapping[str, Any]], batch: Any, step: int) -> float | None:
    """Returns the seconds of a run's training steps, from the speeds in its log; None if the log has none.

    Args:
        batch: the examples of a step.
        step: after which steps do not count.
    """
    seconds, last = 0.0, 0
    for line in log:
        now, speed = int(line["step"]), line.get("examples_per_second")
        if not isinstance(speed, int | float) or not isinstance(batch, int) or speed <= 0 or now > step:
            continue
        seconds += max(0, now - last) * batch / speed
        last = max(last, now)
    return round(seconds, 1) if last else None


def list_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[list[str]]:
    """Returns the settings in which two runs differ, as [name, first value, second value]; places are left out."""
    names = [name for name in {**first, **second} if name.split(".")[0] not in PLACES]
    told = [[name, *(_tell(settings, name) for settings in (first, second))] for name in names]
    return [row for row in told if row[1] != row[2]]


def _tell(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "not a setting"


def _flatten(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return flat


def _describe_network(settings: Mapping[str, Any]) -> str | None:
    if "arch.name" not in settings:
        return None
    parts = [str(settings["arch.name"])]
    parts += [
        words.format(settings[f"arch.{name}"])
        for name, words in (
            ("hidden_size", "width {}"),
            ("L_layers", "{} layers"),
            ("H_cycles", "H cycles {}"),
            ("L_cycles", "L cycles {}"),
            ("halt_max_steps", "at most {} ACT steps"),
        )
        if f"arch.{name}" in settings
    ]
    return ", ".join(parts)


def _describe_training(settings: Mapping[str, Any], step: int) -> str | None:
    if not {"optimizer", "lr", "global_batch_size"} <= settings.keys():
        return None
    loaded = settings.get("load_checkpoint")
    start = f"from {loaded}" if loaded else "from fresh weights"
    if step == 0:
        return f"none, {start}"
    steps = f"{step:,} steps of {settings['global_batch_size']} examples"
    return f"{steps}, {settings['optimizer']} at rate {settings['lr']:g}, {start}"


def _read_command(run: Path) -> str | None:
    """Returns the command line of a run's last start."""
    try:
        words = json.loads((run / VERSIONS).read_text(encoding="utf-8"))["starts"][-1]["command"]
        return shlex.join(["python", *words])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
