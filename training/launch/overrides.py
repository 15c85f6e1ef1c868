"""Checks the words of a command line, and turns a composed configuration into typed settings."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from training.config import Config, EvalConfig
from training.launch.defaults import register_defaults
from training.launch.words import VALUE_OPTIONS
from utils.errors import SettingError

register_defaults()  # as Hydra's manual does it: before anything is composed, wherever that is


def settings_of(model: type[BaseModel], prefix: str = "") -> list[tuple[str, FieldInfo]]:
    """Returns every setting, by its key with dots, with what the model says of it."""
    found: list[tuple[str, FieldInfo]] = []
    for name, field in model.model_fields.items():
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        models = [kind for kind in kinds if issubclass(kind, BaseModel)]
        if models:
            found += settings_of(models[0], f"{prefix}{name}.")
        else:
            found.append((prefix + name, field))
    return found


def known_keys(model: type[BaseModel]) -> list[str]:
    """Returns every key that a command line may set, with dots."""
    return [key for key, _ in settings_of(model)]


def unknown_key(key: str, keys: list[str]) -> str:
    """Returns a sentence about a key that does not exist; it names the script that has it, or the most similar key."""
    if key in known_keys(EvalConfig):
        return f"there is no setting {key!r} in this script: eval_arc_k10.py has it"
    nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    leaf = difflib.get_close_matches(key.split(".")[-1], [k.split(".")[-1] for k in keys], n=1, cutoff=0.6)
    if not nearest and leaf:
        nearest = [k for k in keys if k.split(".")[-1] == leaf[0]]
    return f"there is no setting {key!r}" + (f": did you mean {nearest[0]!r}?" if nearest else "")


def check_overrides(overrides: list[str], model: type[BaseModel], groups: Mapping[str, list[str]]) -> None:
    """Checks the words of a command line before Hydra composes anything.

    Args:
        groups: the files of each group of the configuration, by the group's name.

    Raises:
        SettingError: for the first word that is not a setting.
    """
    keys = known_keys(model)
    for before, override in zip(["", *overrides], overrides, strict=False):
        if override.startswith(("-", "~")) or before in VALUE_OPTIONS:
            continue
        if "=" not in override:
            if override in keys:
                raise SettingError(f"{override!r} has no value: write it as {override}=VALUE, without spaces")
            raise SettingError(f"{override!r} is not a setting: write it as key=value, such as epochs=1000")
        key, value = override.lstrip("+").split("=", 1)
        key = key.split("@")[0]
        if key in groups:
            _check_choice(key, value, groups[key])
        elif key not in keys and not key.startswith("hydra"):
            raise SettingError(unknown_key(key, [*keys, *groups]))
        if key.startswith("tracker.") and not any(
            o.lstrip("+").startswith(("tracker=", "experiment=")) for o in overrides
        ):
            raise SettingError(f"{override} needs a tracker: set tracker=wandb or another one too")


def _check_choice(group: str, value: str, names: list[str]) -> None:
    if value not in names:
        nearest = difflib.get_close_matches(value, names, n=1)
        remedy = f"did you mean {group}={nearest[0]}?" if nearest else f"choose {', '.join(names)}"
        raise SettingError(f"{group}={value} does not exist: {remedy}")


def validate(config: DictConfig | dict[str, Any], model: type[Config]) -> Config:
    """Returns the typed settings of a composed configuration.

    Raises:
        SettingError: one line per problem, each naming the key.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    except OmegaConfBaseException as error:
        problem = " ".join(str(error).split())
        raise SettingError(f"a reference ${{..}} in the settings cannot be resolved ({problem}): correct it") from None
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        raise SettingError("\n".join(_sentence_of(problem, model) for problem in error.errors())) from None


def _sentence_of(problem: Any, model: type[BaseModel]) -> str:
    """One of pydantic's problems as a sentence that begins with the setting's key."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return unknown_key(key, known_keys(model))
    if problem["type"] == "value_error":  # raised by the settings themselves; most of them name the key
        return (f"{key}: " if key and "=" not in problem["msg"] else "") + str(problem["ctx"]["error"])
    if problem["type"] == "string_type" and isinstance(problem["input"], int | float):  # from a YAML file
        return f"{key}={problem['input']!r} is read as a number, not as a text: put it in quotes in its YAML file"
    return f"{key}={problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
