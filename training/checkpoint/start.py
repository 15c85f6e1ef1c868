"""Starts a run: from its own last checkpoint, from other weights, or from fresh ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoint.initialise import RowsStart, initialise_network, initialise_rows
from training.checkpoint.reader import latest_undamaged, list_checkpoints, read_record, restore_state
from training.checkpoint.record import CheckpointRecord, Stage
from training.checkpoint.resume import check_resumable
from training.checkpoint.sources.hub import locate_weights
from training.checkpoint.sources.weights import load_weights, record_of
from training.config import RunConfig, roles_of
from training.state import TrainState
from utils import distributed
from utils.errors import CheckpointError
from utils.run_directory import git_commit


@dataclass(frozen=True)
class Resumed:
    """The run continues from a checkpoint in its folder.

    changed: settings that were different, in words.  problems: why later checkpoints could not be used.
    """

    path: Path
    step: int
    changed: list[str]
    problems: list[str]

    def __str__(self) -> str:
        warnings = "".join(f"warning: {problem}\n" for problem in self.problems)
        changed = f"; settings changed since: {', '.join(self.changed)}" if self.changed else ""
        return f"{warnings}resumed from {self.path} at step {self.step}{changed}"


@dataclass(frozen=True)
class Initialised:
    """A new run starts from existing weights.

    differing: settings that its network has otherwise, in words.  optimizers: that of the weights and another one that
    goes on with them; None if they are the same.
    """

    source: str
    rows: RowsStart
    differing: list[str]
    optimizers: tuple[str, str] | None = None

    def __str__(self) -> str:
        differing = f"; settings differ from its own ({'; '.join(self.differing)})" if self.differing else ""
        optimizers = ""
        if self.optimizers is not None:
            before, now = self.optimizers
            optimizers = f"; they were trained with optimizer={before}, and optimizer={now} starts with fresh state"
        return f"weights of {self.source}, {self.rows}{differing}{optimizers}"


@dataclass(frozen=True)
class Fresh:
    """A new run starts from fresh weights."""

    def __str__(self) -> str:
        return "no checkpoint to continue from, so fresh weights: load_checkpoint is not set"


Start = Resumed | Initialised | Fresh


def start_state(state: TrainState, directory: Path, identity: Mapping[str, Any]) -> Start:
    """Sets the state that a run starts from.  Looks for it in this order:

    1. the last undamaged checkpoint in the run's own folder, unless `resume=never`;
    2. the weights that `load_checkpoint` names;
    3. the fresh weights that the state has already.

    Args:
        directory: the run's folder.
        identity: fingerprints `data` and `puzzles` of the data sets; a resumed run must have the same data.

    Returns:
        which of them it is; `str` of it tells the user.

    Raises:
        CheckpointError: if what is found cannot be used.
    """
    config = state.config
    assert isinstance(config, RunConfig), "these settings do not say what to start from"
    if config.resumes:
        # Rank 0 looks, and reads every byte once; the other ranks rely on it.
        path, problems = distributed.from_main(lambda: latest_undamaged(directory))
        if path is not None:
            changed = check_resumable(config, path, read_record(path), identity["data"])
            restore_state(state, path)
            return Resumed(path, state.step, changed, problems)
    elif config.epochs and distributed.from_main(lambda: bool(list_checkpoints(directory))):
        raise CheckpointError(f"resume=never, but {directory} holds checkpoints: choose another checkpoint_path")

    if config.load_checkpoint is None:
        return Fresh()
    weights = load_weights(locate_weights(config.load_checkpoint), config.load_averaged)
    initialise_network(state.network, weights)
    rows = initialise_rows(state, weights, config.rows_from, identity["puzzles"], identity.get("tasks"))
    for each in state.averages:
        each.reset()
    before = weights.record.optimizer
    switches = state.optimizer is not None and before not in (None, config.optimizer)
    optimizers = (str(before), config.optimizer) if switches else None
    return Initialised(weights.source, rows, weights.record.unlike(config.arch), optimizers)


def record_before(config: RunConfig) -> CheckpointRecord:
    """Returns the record of the weights that `load_checkpoint` names; an empty one if there is none."""
    if config.load_checkpoint is None:
        return CheckpointRecord()
    return record_of(locate_weights(config.load_checkpoint))


def seen_tasks(config: RunConfig) -> dict[str, str]:
    """Returns the tasks that the weights of `load_checkpoint` were trained on: key -> whole or demonstrations."""
    return dict(record_before(config).task_keys)


def start_record(
    config: RunConfig,
    run_name: str,
    data: Sequence[Mapping[str, Any]],
    identity: Mapping[str, Any],
    task_keys: Mapping[str, str],
) -> CheckpointRecord:
    """Returns what every checkpoint of a run says of it.  Reads the record of `load_checkpoint`, and asks git.

    Args:
        data: what each data set consists of (`StageData`).
        identity: fingerprints `data`, `puzzles` and, if rows belong to them, `tasks` of the data sets.
        task_keys: tasks of the data sets: key -> whole or demonstrations.
    """
    before = record_before(config)
    settings = config.model_dump(mode="json")
    recipe = {name: settings[name] for name, roles in roles_of(type(config)).items() if roles.recipe}
    stage = Stage.model_validate({"run": run_name, "data": list(data), "recipe": recipe})
    return CheckpointRecord(
        config=settings,
        data=identity["data"],
        puzzles=identity["puzzles"],
        tasks=identity.get("tasks"),
        task_keys=before.task_keys | dict(task_keys),
        stages=[*before.complete_stages, stage],
        git=git_commit(),
    )
