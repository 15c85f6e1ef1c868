"""Trackers: what `metrics.jsonl` gets goes to TensorBoard, Weights & Biases or Trackio too.

Each is an optional package that is imported only where it is asked for, on rank 0.  By default everything stays on this
machine: nobody is asked to log in, nothing is sent.

    RUN/
      tracker.json    the run's id at its tracker, so that a resumed run goes on there
      tensorboard/    tracker=tensorboard: event files
      wandb/          tracker=wandb: what `wandb sync` sends later
    TRACKIO_DIR, or ~/.cache/huggingface/trackio/   tracker=trackio: one database per project, for `trackio show`
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from utils.files import write_atomically

TRACKER = "tracker.json"

MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "trackio": "trackio"}
"""What is imported for each tracker; the extra of the same name installs it."""

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
            raise ValueError("tracker.mode=online: tensorboard only writes files; leave it out")
        if self.name == "trackio" and self.mode == "online" and self.entity is None:
            raise ValueError("tracker.mode=online needs the Space that trackio sends to: set tracker.entity=USER/NAME")
        if self.mode == "offline" and self.entity is not None:
            raise ValueError(f"tracker.entity={self.entity} is for tracker.mode=online: set both or none")
        return self


class Tracker(Protocol):
    """What keeps metrics somewhere else."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes finite numbers by name.  What it raises ends the tracking, not the run."""

    def close(self) -> None:
        """Hands on what it still holds."""


def check(config: TrackerConfig) -> None:
    """Imports the tracker's package and, where it is to send, looks for a login.

    Raises:
        ValueError: naming the extra to install, or how to log in.
    """
    try:
        module = importlib.import_module(MODULES[config.name])
    except ImportError as error:
        raise ValueError(f"{_missing(config.name)} ({error})") from None
    if module.__file__ is None:  # a folder of that name, such as the one that wandb itself makes
        raise ValueError(f"{_missing(config.name)} (a folder {config.name} is all that is found)")
    if config.mode == "online":
        how = {"wandb": "wandb login, or WANDB_API_KEY", "trackio": "hf auth login, or HF_TOKEN"}[config.name]
        if not (_has_login_of_wandb() if config.name == "wandb" else _has_login_of_the_hub()):
            raise ValueError(f"tracker.mode=online finds no login for {config.name} ({how}): log in, or leave it out")


def _missing(name: str) -> str:
    return f'tracker={name} needs its package: pip install -e ".[{name}]"'


def _has_login_of_wandb() -> bool:
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except (wandb.errors.Error, ValueError) as error:  # a wrong WANDB_ variable is a ValueError of several lines
        said = " ".join(str(error).split())
        raise ValueError(f"tracker.mode=online: wandb refuses to log in ({said}): mend that, or leave it out") from None


def _has_login_of_the_hub() -> bool:
    import huggingface_hub

    return huggingface_hub.get_token() is not None


def open_tracker(
    config: TrackerConfig, folder: Path, run_name: str, project: str, settings: Mapping[str, Any], step: int
) -> Tracker:
    """The tracker of the run in `folder`; a run that has been tracked there before goes on as the same one.

    Args:
        project: what to file the run under where `config` names nothing.
        settings: of the run, shown beside its curves.
        step: of the checkpoint that the run goes on from; later points of TensorBoard are taken back.
    """
    identity, known = _identity(folder)
    run = _Run(config, folder, run_name, config.project or project, settings, step, identity, known)
    opened = _Guarded(lambda: _KINDS[config.name](run))
    _open.append(opened)
    return opened


_open: list[Tracker] = []


@atexit.register
def close_all() -> None:
    """Closes every open tracker.  Called when the program leaves, whichever way; again it does nothing."""
    while _open:
        _open.pop().close()


@dataclass(frozen=True)
class _Run:
    """What a tracker is told when it is opened; known: whether the run was tracked before."""

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
    """The run's id at any tracker, and whether it had one before."""
    path = folder / TRACKER
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["id"]), True
    except (OSError, ValueError, KeyError, TypeError):
        identity = secrets.token_hex(4)
        write_atomically(path, json.dumps({"id": identity}) + "\n")
        return identity, False


class _Guarded:
    """A tracker whose failures end the tracking and not the run: a day of training outlasts a network."""

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
                f"warning: the tracker failed ({type(error).__name__}: {error}) and gets nothing more; "
                "metrics.jsonl goes on",
                flush=True,
            )


class _TensorBoard:
    def __init__(self, run: _Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)
        if not run.known:
            text = yaml.safe_dump(dict(run.settings), sort_keys=False)
            self._writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()), 0)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name.replace("@", "_at_"), value, step)
        self._writer.flush()  # a page that is watched shows every line of the log

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """Points carry their step as a value: a resumed run may log steps again, which wandb's own count forbids."""

    def __init__(self, run: _Run) -> None:
        import wandb

        self._run = wandb.init(
            project=run.project,
            entity=run.config.entity,
            name=run.name,
            id=run.identity,
            resume="allow" if run.online else None,  # offline, `wandb sync` joins what has one id
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
    def __init__(self, run: _Run) -> None:
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


_KINDS: dict[str, Callable[[_Run], Tracker]] = {"tensorboard": _TensorBoard, "wandb": _WandB, "trackio": _Trackio}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what Trackio tells on standard output from a log of one line per thing that happens."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """The environment without some variables."""
    held = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)
