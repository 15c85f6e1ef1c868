"""Sets up a run for both torchrun scripts: ranks, data, folder, and what it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dataset import announcing_compilation, storage
from dataset.storage import Split
from training import checkpoint
from training.checkpoint import CheckpointRecord
from training.config import RunConfig
from training.data import TrainingData, describe_visits, open_training_data
from training.prepare.compiler import not_compiled_because
from training.prepare.precision import slow_because
from training.prepare.threads import crowded_because
from training.state import TrainState
from utils import distributed, metrics_log, run_directory, trackers
from utils.errors import SettingError
from utils.progress import print0, progress_callback


@dataclass
class Run:
    """What a script needs from its first line to its last.

    directory: the run's folder, created by `start_run`.
    identity: `data`, the fingerprint of what training reads of each data set, and `puzzles`, which puzzle each
        identifier stands for; with a composed embedding `tasks`, which task each row stands for.
    task_keys: the tasks of the data sets by content, and whether each is trained on whole or by demonstrations alone.
    data: what each data set is made of.
    metrics: the log; it writes nothing before `start_run` has opened it.
    record: what each checkpoint says of the run; `start_run` makes it.
    """

    config: RunConfig
    device: torch.device
    world_size: int
    name: str
    directory: Path
    identity: dict[str, Any]
    task_keys: dict[str, str]
    data: list[dict[str, Any]]
    metrics: metrics_log.MetricsLog = field(default_factory=lambda: metrics_log.MetricsLog(None))
    record: CheckpointRecord = field(default_factory=CheckpointRecord)


def open_run(config: RunConfig) -> Run:
    """Joins the ranks, checks the data and names the run (rank 0 does for all).  Writes nothing.

    Raises:
        InputError: if settings, data and ranks do not fit together.
    """
    device, ranks = distributed.setup(config.device), distributed.world_size()
    if slow := slow_because(config.arch, device):
        print0(slow)
    if crowded := crowded_because(device):
        print0(crowded)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    if config.global_batch_size % ranks:
        raise SettingError(
            f"global_batch_size={config.global_batch_size} does not divide by {ranks} ranks: "
            f"choose a multiple of {ranks}"
        )
    if (config.load_checkpoint or "").startswith(checkpoint.HUB):
        checkpoint.locate_weights(config.load_checkpoint or "")  # fetched before anything is built
    identity = identify_data(config)
    manifests = [storage.open_manifest(path) for path in config.data_paths]
    if (tracker := config.tracker) is not None:
        distributed.from_main(lambda: trackers.check_tracker(tracker))
    name, folder = name_run(config)
    run = Run(
        config=config,
        device=device,
        world_size=ranks,
        name=name,
        directory=folder,
        identity=identity,
        task_keys={
            key: how for manifest in manifests if manifest is not None for key, how in manifest.task_keys.items()
        },
        data=[describe_data_set(path, each) for path, each in zip(config.data_paths, manifests, strict=True)],
    )
    why = "" if config.compile is not None else not_compiled_because(device)
    print0(f"run {name} in {folder} on {ranks} x {device.type}" + (why and f"; {why}"))
    for sentence in config.warnings:
        print0(f"warning: {sentence}")
    return run


def identify_data(config: RunConfig) -> dict[str, Any]:
    """Returns the fingerprints of the data sets (`Run.identity`).  Rank 0 reads them for all."""
    prints = distributed.from_main(
        lambda: [
            storage.fingerprints(path, config.verify_data, progress_callback("bytes of data compared: "))
            for path in config.data_paths
        ]
    )
    identity: dict[str, Any] = {
        "data": [data for data, _ in prints],
        "puzzles": "+".join(puzzles for _, puzzles in prints),
    }
    if config.arch.is_composed:  # rows belong to tasks
        tasks = distributed.from_main(lambda: [storage.tasks_digest(path) for path in config.data_paths])
        identity["tasks"] = "+".join(tasks)
    return identity


def name_run(config: RunConfig) -> tuple[str, Path]:
    """Returns the name and the folder of the run.  A folder that has a name keeps it; rank 0 decides for all."""
    name = config.run_name or run_directory.random_name()
    folder = Path(config.checkpoint_path or Path("checkpoints") / (config.project_name or "trm") / name)
    return distributed.broadcast_object((run_directory.read_run_name(folder) or name, folder))


def describe_data_set(path: str, manifest: storage.Manifest | None) -> dict[str, Any]:
    """Returns what a data set is made of, for users of the weights who do not have it.

    A data set of the published code has no manifest, and says less.
    """
    metadata = storage.open_metadata(path, "train")
    tokens = ("vocab_size", "seq_len", "row_stride", "pad_id", "ignore_label_id")
    stored = {} if manifest is None else manifest.model_dump(mode="json", include={"sources", "settings", "counts"})
    return {"name": Path(path).name, **stored, "tokens": {name: getattr(metadata, name) for name in tokens}}


def open_data(run: Run, splits: Sequence[Split]) -> TrainingData:
    """Opens what the run trains on; says which canvases it uses and how often it will visit a puzzle."""
    with announcing_compilation(print0):
        data = open_training_data(run.config, splits)
    if canvases := str(data):
        print0(canvases)
    print0(describe_visits(run.config, splits))
    return data


def start_run(run: Run, state: TrainState) -> str:
    """Resumes or initialises the state (`training.checkpoint.start_state`), then opens the run's folder.

    The folder gets the settings, versions and manifests of this start.  Its log is cut off after the state's step.

    Returns:
        what the state starts from, as a sentence.
    """
    started = checkpoint.start_state(state, run.directory, run.identity)
    run.record = checkpoint.start_record(run.config, run.name, run.data, run.identity, run.task_keys)
    manifests = [storage.open_manifest(path) for path in run.config.data_paths]
    folder = run_directory.open_run_directory(run.directory, run.name)
    run_directory.write_run_files(
        folder, run.config.model_dump(mode="json"), [m.model_dump(mode="json") for m in manifests if m is not None]
    )
    run.metrics = folder.metrics
    run.metrics.truncate_after(state.step)
    track(run, state.step)
    return str(started)


def track(run: Run, step: int) -> None:
    """Opens the run's tracker on rank 0; from now on it gets what the log gets."""
    config = run.config
    if config.tracker is None or not distributed.is_main():
        return
    settings = config.model_dump(mode="json", exclude={"tracker"})
    project = config.project_name or "trm"
    run.metrics.tracker = trackers.open_tracker(config.tracker, run.directory, run.name, project, settings, step)
    print0(f"tracked by {config.tracker.name}, {config.tracker.mode}")
