"""Checks the words of a command line and turns a composed configuration into typed settings."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from training.config import Config


def settings_of(model: type[BaseModel], prefix: str = "") -> list[tuple[str, FieldInfo]]:
    """Every setting in dotted form with what the model says of it."""
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
    """Every key that a command line may set, in dotted form."""
    return [key for key, _ in settings_of(model)]


def unknown_key(key: str, keys: list[str]) -> str:
    """One sentence about a key that does not exist, naming its nearest neighbour."""
    nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    leaf = difflib.get_close_matches(key.split(".")[-1], [k.split(".")[-1] for k in keys], n=1, cutoff=0.6)
    if not nearest and leaf:
        nearest = [k for k in keys if k.split(".")[-1] == leaf[0]]
    return f"there is no setting {key!r}" + (f": did you mean {nearest[0]!r}?" if nearest else "")


HYDRA_OPTIONS = frozenset(
    (
        "--cfg",
        "-c",
        "--package",
        "-p",
        "--config-path",
        "-cp",
        "--config-name",
        "-cn",
        "--config-dir",
        "-cd",
        "--info",
        "-i",
    )
)
"""Hydra's own options that a value may follow."""


def check_overrides(overrides: list[str], model: type[BaseModel], groups: Mapping[str, list[str]]) -> None:
    """Raises ValueError for the first override that cannot be one, before Hydra composes anything.

    Args:
        groups: the files of each group of the configuration, by name.
    """
    keys = known_keys(model)
    for before, override in zip(["", *overrides], overrides, strict=False):
        if override.startswith(("-", "~")) or before in HYDRA_OPTIONS:
            continue
        if "=" not in override:
            raise ValueError(f"{override!r} is no setting: write it as key=value, such as epochs=1000")
        key, value = override.lstrip("+").split("=", 1)
        key = key.split("@")[0]
        if key in groups and value not in groups[key]:
            nearest = difflib.get_close_matches(value, groups[key], n=1)
            raise ValueError(
                f"{key}={value} does not exist"
                + (f": did you mean {key}={nearest[0]}?" if nearest else f": choose {', '.join(groups[key])}")
            )
        if key not in keys and key not in groups and not key.startswith("hydra"):
            raise ValueError(unknown_key(key, [*keys, *groups]))
        if key.startswith("tracker.") and not any(
            o.lstrip("+").startswith(("tracker=", "experiment=")) for o in overrides
        ):
            raise ValueError(f"{override} without a tracker: set tracker=wandb or another one too")


def validate(config: DictConfig | dict[str, Any], model: type[Config]) -> Config:
    """The typed settings of a composed configuration.

    Raises:
        ValueError: one line per problem, each naming the key.
    """
    plain = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                lines.append(unknown_key(key, known_keys(model)))
            elif problem["type"] == "value_error":
                lines.append((f"{key}: " if key and "=" not in problem["msg"] else "") + str(problem["ctx"]["error"]))
            else:
                lines.append(f"{key}={problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}")
        raise ValueError("\n".join(lines)) from None
