"""Sends the lines of `metrics.jsonl` to TensorBoard, Weights & Biases or Trackio too.

Each is an optional package, which is imported only where it is asked for, on rank 0.  By default all data stay on this
machine: no login is needed and nothing is sent.

    RUN/
      tracker.json    the run's id at its tracker, so that a resumed run continues there
      tensorboard/    tracker=tensorboard: event files
      wandb/          tracker=wandb: the files that `wandb sync` sends later
    TRACKIO_DIR, or ~/.cache/huggingface/trackio/   tracker=trackio: one database per project, for `trackio show`
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import inspect
import io
import json
import math
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from utils.errors import SettingError
from utils.files import write_atomically

TRACKER = "tracker.json"

MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "trackio": "trackio"}
"""The module that each tracker needs; the extra of the same name installs it."""

NETWORK_VARIABLES = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_WEBHOOK_URL")
"""Any of these in the environment makes Trackio send what it logs."""


class TrackerConfig(BaseModel):
    """`tracker.*`: where metrics go besides `metrics.jsonl`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["tensorboard", "wandb", "trackio"] = Field(description="which one; tracker=NAME sets it")
    mode: Literal["offline", "online"] = Field(
        "offline", description="offline: nothing leaves this machine; online: sent as it is logged, by your login"
    )
    project: str | None = Field(None, description="what the tracker files the run under; null: project_name, or trm")
    entity: str | None = Field(None, description="online: the team of wandb, the Space USER/NAME of trackio")

    @model_validator(mode="after")
    def _possible(self) -> TrackerConfig:
        if self.name == "tensorboard" and self.mode == "online":
            raise SettingError("tracker.mode=online: tensorboard only writes files; leave it out")
        if self.name == "trackio" and self.mode == "online" and self.entity is None:
            raise SettingError(
                "tracker.mode=online needs the Space that trackio sends to: set tracker.entity=USER/NAME"
            )
        if self.mode == "offline" and self.entity is not None:
            raise SettingError(f"tracker.entity={self.entity} is for tracker.mode=online: set both or none")
        return self


class Tracker(Protocol):
    """A place that keeps metrics."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes finite numbers by name.  An exception ends the tracking, not the run."""

    def close(self) -> None:
        """Writes or sends everything that is still in memory."""


def check_tracker(config: TrackerConfig) -> None:
    """Imports the tracker's package and, with mode=online, looks for a login.

    Raises:
        SettingError: naming the extra to install, or how to log in.
    """
    try:
        module = importlib.import_module(MODULES[config.name])
    except ImportError as error:
        raise SettingError(f"{_missing(config.name)} ({error})") from None
    if module.__file__ is None:  # a folder of that name, such as the one that wandb itself makes
        raise SettingError(f"{_missing(config.name)} (only a folder {config.name} was found)")
    if config.mode == "online":
        how = {"wandb": "wandb login, or WANDB_API_KEY", "trackio": "hf auth login, or HF_TOKEN"}[config.name]
        if not (_has_login_of_wandb() if config.name == "wandb" else _has_login_of_the_hub()):
            raise SettingError(f"tracker.mode=online finds no login for {config.name} ({how}): log in, or leave it out")


def _missing(name: str) -> str:
    return f'tracker={name} needs its package: pip install -e ".[{name}]"'


def _has_login_of_wandb() -> bool:
    """Whether wandb has credentials.  It never asks for them here, whatever the version of its `login` accepts."""
    import wandb

    accepted = inspect.signature(wandb.login).parameters.values()
    options: dict[str, Any] = {}
    if any(one.name == "prompt" or one.kind is one.VAR_KEYWORD for one in accepted):
        options["prompt"] = False
    try:
        with _no_terminal():  # a version without `prompt` asks wherever there is one
            return bool(wandb.login(**options))
    except wandb.errors.UsageError as error:
        if any(sign in str(error) for sign in ("tty", "No API key")):  # it would have asked
            return False
        raise _refused(error) from None
    except (
        wandb.errors.Error,
        ValueError,
        TypeError,
    ) as error:  # a wrong WANDB_ variable: a ValueError of several lines
        raise _refused(error) from None


def _refused(error: Exception) -> SettingError:
    said = " ".join(str(error).split())
    return SettingError(f"tracker.mode=online: wandb refuses to log in ({said}): correct that, or leave it out")


@contextlib.contextmanager
def _no_terminal() -> Iterator[None]:
    """Within the block standard input is empty and no terminal."""
    before, sys.stdin = sys.stdin, io.StringIO()
    try:
        yield
    finally:
        sys.stdin = before


def _has_login_of_the_hub() -> bool:
    import huggingface_hub

    return huggingface_hub.get_token() is not None


def open_tracker(
    config: TrackerConfig, folder: Path, run_name: str, project: str, settings: Mapping[str, Any], step: int
) -> Tracker:
    """Opens the tracker of the run in `folder`; a run that was tracked there before continues under its id.

    Args:
        project: the project of the run if `config` names none.
        settings: the settings of the run, shown beside its curves.
        step: the step of the checkpoint that the run continues from.  TensorBoard drops later points.
    """
    identity, known = _identity(folder)
    run = _TrackedRun(config, folder, run_name, config.project or project, settings, step, identity, known)
    opened = _Guarded(lambda: _KINDS[config.name](run))
    _open.append(opened)
    return opened


_open: list[Tracker] = []


@atexit.register
def close_all() -> None:
    """Closes every open tracker, at the latest when the program ends.  A second call does nothing."""
    while _open:
        _open.pop().close()


@dataclass(frozen=True)
class _TrackedRun:
    """The arguments of a tracker.

    known: whether the run was tracked before.
    """

    config: TrackerConfig
    folder: Path
    name: str
    project: str
    settings: Mapping[str, Any]
    step: int
    identity: str
    known: bool

    @property
    def online(self) -> bool:
        return self.config.mode == "online"


def _identity(folder: Path) -> tuple[str, bool]:
    """Returns the run's id at any tracker, and whether it had one before."""
    path = folder / TRACKER
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["id"]), True
    except (OSError, ValueError, KeyError, TypeError):
        identity = secrets.token_hex(4)
        write_atomically(path, json.dumps({"id": identity}) + "\n")
        return identity, False


class _Guarded:
    """A tracker whose failures end the tracking and not the run: a day of training must survive a network failure."""

    def __init__(self, make: Callable[[], Tracker]) -> None:
        self._tracker: Tracker | None = None
        with self._caught():
            self._tracker = make()

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        numbers = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
        with self._caught():
            if self._tracker is not None:
                self._tracker.log(step, numbers)

    def close(self) -> None:
        with self._caught():
            if self._tracker is not None:
                self._tracker.close()
        self._tracker = None

    @contextlib.contextmanager
    def _caught(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._tracker = None
            print(
                f"warning: the tracker failed ({type(error).__name__}: {error}) and gets no more metrics; "
                "metrics.jsonl continues",
                flush=True,
            )


class _TensorBoard:
    def __init__(self, run: _TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)
        if not run.known:
            text = yaml.safe_dump(dict(run.settings), sort_keys=False)
            self._writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()), 0)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name.replace("@", "_at_"), value, step)
        self._writer.flush()  # so that an open page shows every line of the log

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """Logs the step as a value: a resumed run may log a step again, which wandb's own step counter forbids."""

    def __init__(self, run: _TrackedRun) -> None:
        import wandb

        self._run = wandb.init(
            project=run.project,
            entity=run.config.entity,
            name=run.name,
            id=run.identity,
            resume="allow" if run.online else None,  # offline, `wandb sync` joins the files of one id
            mode=run.config.mode,
            dir=str(run.folder),
            config=dict(run.settings),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, run: _TrackedRun) -> None:
        import trackio

        self._finish = trackio.finish
        with _quiet(), contextlib.nullcontext() if run.online else _without(NETWORK_VARIABLES):
            self._run = trackio.init(
                project=run.project,
                name=run.name,
                space_id=run.config.entity if run.online else None,
                resume="allow" if run.known else "never",
                config=dict(run.settings),
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        with _quiet():
            self._finish()


_KINDS: dict[str, Callable[[_TrackedRun], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "trackio": _Trackio,
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what Trackio prints on standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Within the block the environment lacks some variables."""
    held = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)
