"""Runs a torchrun script: Hydra composes the settings, they are checked, and `main` of the script gets them."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from training.config import Config
from training.launch.help import help_text
from training.launch.overrides import check_overrides, settings_of, validate
from training.launch.sweeps import separate_runs
from training.launch.words import SWEEPS, keep_texts, options_first, quote_text, text_keys
from utils import trackers
from utils.cli import StoppedBySignal, run_command
from utils.errors import SettingError
from utils.progress import print0

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
        if asked := {"--help", "-h"} & set(words):
            word = next(iter(words[words.index(asked.pop()) + 1 :]), "")
            about = str(sys.modules[main.__module__].__doc__ or "")
            print(help_text(about, model, defaults_of(config_name, model), GROUPS, word))
            return
        check_overrides(words, model, GROUPS)
        texts = keep_texts(words, text_keys(settings_of(model)))
        configs = [validate(config, model) for config in compose_configs(config_name, texts)]
        try:
            for number, config in enumerate(configs, start=1):
                if len(configs) > 1:
                    print0(f"run {number} of {len(configs)} of this sweep")
                run_once(main, config)
        except KeyboardInterrupt:
            raise StoppedBySignal(
                signal.SIGINT, "stopped by SIGINT; the same command continues from the last checkpoint, if there is one"
            ) from None
        leave_ranks()

    return run_command(compose_and_run)


def leave_ranks() -> None:
    from utils import distributed

    distributed.teardown()


def run_once(main: Callable[[Config], None], config: Config) -> None:
    """Calls `main`, then closes what a run has open, however it ended."""
    import torch  # not needed to compose settings, and slow to load

    from training.prepare.precision import choose_dtype, replace_emulated
    from utils import run_directory

    kind = "cpu" if config.device == "cpu" or not torch.cuda.is_available() else "cuda"
    device = torch.device(kind)
    arch = choose_dtype(config.arch, device)
    if config.dry_run_hardware is not None and config.arch.forward_dtype == "auto":
        arch = config.arch.model_copy(update={"forward_dtype": "bfloat16"})  # these GPUs compute in it
    elif config.dry_run_hardware is None:
        arch = replace_emulated(arch, device)
    if arch.forward_dtype == "float32" != config.arch.forward_dtype:
        print0(
            f"arch.forward_dtype={config.arch.forward_dtype} is float32 here, since not every device of this machine "
            "computes in bfloat16"
        )
    try:
        main(config if arch is config.arch else config.model_copy(update={"arch": arch}))
    finally:
        trackers.close_all()
        run_directory.release_locks()


def compose_configs(config_name: str, words: Sequence[str]) -> list[DictConfig]:
    """Returns what Hydra composes from the words of a command line.

    This is one configuration; several with `--multirun`, each with a folder of its own; none where an option of Hydra's
    own only prints something (`--cfg`, `--info`, `--hydra-help`).

    Raises:
        SettingError: if options of Hydra's own do not go together.
    """
    composed: list[DictConfig] = []
    chosen: list[list[str]] = []

    @hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name=config_name)
    def keep(config: DictConfig) -> None:
        composed.append(config)
        words_of_run: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        chosen.append(words_of_run)

    # Hydra prints what `keep` raises in its own way, so that the script's `main` is called outside.
    with tempfile.TemporaryDirectory() as scratch, _command_line(_in_scratch(for_hydra(words), scratch)):
        try:
            keep()
        except ValueError as error:  # options of Hydra's own that do not go together
            problem = " ".join(str(error).split())
            raise SettingError(f"Hydra refuses the options of the command line ({problem}): correct them") from None
    separate_runs(composed, chosen)
    return composed


def _in_scratch(words: Sequence[str], scratch: str) -> list[str]:
    """Lets what Hydra keeps of a sweep go elsewhere than into the working directory, unless the words say where."""
    if not SWEEPS & set(words) or any(word.lstrip("+").startswith("hydra.sweep.dir=") for word in words):
        return list(words)
    return [*words, f"hydra.sweep.dir={quote_text(scratch)}"]


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
    """Returns overrides as Hydra needs them.

    Its own options come first, `+arch=NAME` loses its plus, and null becomes the name of a group's file.
    """
    chosen = []
    for override in options_first(overrides):
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
