"""The door of the torchrun scripts: Hydra composes, `training.config` checks, errors become one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from omegaconf import DictConfig

from training.config import Config, check_overrides, validate
from utils import distributed

CONFIG_DIR = str(Path(__file__).resolve().parent.parent / "config")
GROUPS = ("arch", "experiment")

EXIT_BAD_INPUT = 2
"""Exit status where settings, data or a checkpoint are not usable as given."""


def run(config_name: str, model: type[Config], main: Callable[[Config], None]) -> None:
    """Composes `config/CONFIG_NAME.yaml` with the command line, validates it as `model` and calls `main`.

    A ValueError or OSError ends the program with its message and status 2; anything else is a bug and keeps its
    traceback.
    """

    composed: list[DictConfig] = []

    # Hydra prints what is raised inside its decorator as it likes, so that it only composes there.
    @hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name=config_name)
    def compose(config: DictConfig) -> None:
        composed.append(config)

    try:
        check_overrides(sys.argv[1:], model, GROUPS)
        compose()
        for config in composed:
            main(validate(config, model))
    except (ValueError, OSError) as error:
        if distributed.is_main():
            print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    finally:
        distributed.teardown()
