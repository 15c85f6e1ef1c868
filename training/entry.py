"""The door of the torchrun scripts: Hydra composes, `training.config` checks, errors become one sentence."""

from __future__ import annotations

import sys
import time
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

SECONDS_FOR_RANK_0 = 5.0


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
        _say(error)
        sys.exit(EXIT_BAD_INPUT)
    finally:
        distributed.teardown()


def _say(error: Exception) -> None:
    """Prints the sentence once.  What one rank refuses all of them do, and torchrun ends the rest as soon as one has
    ended: the others leave rank 0 the time to speak, and speak for themselves if they are then still there."""
    if distributed.is_main():
        print(f"error: {error}", file=sys.stderr, flush=True)
    else:
        time.sleep(SECONDS_FOR_RANK_0)
        print(f"error on rank {distributed.rank()}: {error}", file=sys.stderr, flush=True)
