"""What the torchrun scripts do before and around training: ranks, run folder, what to start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dataset import storage
from dataset.storage import Split
from training import checkpoint
from training.buckets.data import TrainingData, open_training_data
from training.config import RunConfig
from training.state import TrainState
from utils import distributed, metrics_log, progress, run_directory, trackers
from utils.progress import progress_callback

RECIPE = (
    *("global_batch_size", "epochs", "lr", "lr_min_ratio", "lr_warmup_steps", "weight_decay", "beta1", "beta2"),
    *("atan2_scale", "puzzle_emb_lr", "puzzle_emb_weight_decay", "ema", "ema_rate", "canvases", "seed"),
)
"""The settings that a network's later users are told of."""


@dataclass
class Run:
    """What lasts from the first line of a script to its last.

    directory: the run's folder, made by `start`.
    identity: `data`, what training reads of each data set, and `puzzles`, which puzzle each identifier stands for.
    task_keys: the tasks of the data sets whatever their names, and whether whole or by their demonstrations alone.
    data: what each data set is made of.
    say: prints one line on rank 0.
    metrics: the log; it writes nothing before `start` has opened it.
    """

    config: RunConfig
    device: torch.device
    rank: int
    world_size: int
    name: str
    directory: Path
    identity: dict[str, Any]
    task_keys: dict[str, str]
    data: list[dict[str, Any]]
    say: Callable[[str], None]
    metrics: metrics_log.MetricsLog = field(default_factory=lambda: metrics_log.MetricsLog(None))

    @property
    def record(self) -> dict[str, Any]:
        """What a checkpoint says of its run besides the state."""
        settings = self.config.model_dump(mode="json")
        seen = checkpoint.seen_tasks(self.config) | self.task_keys
        recipe = {name: settings[name] for name in RECIPE}
        stages = [*checkpoint.stages_before(self.config), {"run": self.name, "data": self.data, "recipe": recipe}]
        return {
            **{"config": settings, **self.identity, "task_keys": seen, "stages": stages},
            "git": run_directory.git_commit(),
        }


def open_run(config: RunConfig) -> Run:
    """Joins the ranks, checks the data, names the run (rank 0 does for all).  Writes nothing.

    Raises:
        ValueError: naming what does not fit together.
    """
    device = distributed.setup(config.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    if config.global_batch_size % distributed.world_size():
        raise ValueError(
            f"global_batch_size={config.global_batch_size} does not divide by {distributed.world_size()} ranks: "
            f"choose a multiple of {distributed.world_size()}"
        )
    prints = distributed.from_main(
        lambda: [
            storage.fingerprints(path, config.verify_data, progress_callback("bytes of data compared: "))
            for path in config.data_paths
        ]
    )
    identity = {"data": [data for data, _ in prints], "puzzles": "+".join(puzzles for _, puzzles in prints)}
    manifests = [storage.open_manifest(path) for path in config.data_paths]
    task_keys: dict[str, str] = {key: how for m in manifests if m is not None for key, how in m.task_keys.items()}
    if (tracker := config.tracker) is not None:
        distributed.from_main(lambda: trackers.check_tracker(tracker))
    name = config.run_name or run_directory.random_name()
    folder = Path(config.checkpoint_path or Path("checkpoints") / (config.project_name or "trm") / name)
    name = distributed.broadcast_object(run_directory.read_run_name(folder) or name)
    why = config.not_compiled_because(device)
    say = progress.print0
    say(f"run {name} in {folder} on {distributed.world_size()} x {device.type}" + (why and f"; {why}"))
    data = [_described(path, manifest) for path, manifest in zip(config.data_paths, manifests, strict=True)]
    ranks = (distributed.rank(), distributed.world_size())
    return Run(config, device, *ranks, name, folder, identity, task_keys, data, say)


def _described(path: str, manifest: storage.Manifest | None) -> dict[str, Any]:
    """What a data set is made of, for those who get the weights without it; a published one does not say."""
    metadata = storage.open_split(path, "train").metadata
    tokens = ("vocab_size", "seq_len", "row_stride", "pad_id", "ignore_label_id")
    told = {} if manifest is None else manifest.model_dump(mode="json", include={"sources", "settings", "counts"})
    return {"name": Path(path).name, **told, "tokens": {name: getattr(metadata, name) for name in tokens}}


def open_data(run: Run, splits: Sequence[Split]) -> TrainingData:
    """Opens what the run trains on, and says which canvases it uses."""
    data = open_training_data(run.config, splits)
    if canvases := str(data):
        run.say(canvases)
    return data


def start(run: Run, state: TrainState) -> str:
    """Resumes or initialises the state (`training.checkpoint.start`), then makes the run's folder, writes what the
    run is made with and cuts the log to where it goes on."""
    said = checkpoint.start(state, run.directory, run.identity)
    manifests = [storage.open_manifest(path) for path in run.config.data_paths]
    folder = run_directory.open_run_directory(run.directory, run.name)
    run_directory.write_run_files(
        folder, run.config.model_dump(mode="json"), [m.model_dump(mode="json") for m in manifests if m is not None]
    )
    run.metrics = folder.metrics
    run.metrics.truncate_after(state.step)
    track(run, state.step)
    return said


def track(run: Run, step: int) -> None:
    """Lets the run's tracker have what its log gets from now on, on rank 0."""
    config = run.config
    if config.tracker is None or not distributed.is_main():
        return
    settings = config.model_dump(mode="json", exclude={"tracker"})
    project = config.project_name or "trm"
    run.metrics.tracker = trackers.open_tracker(config.tracker, run.directory, run.name, project, settings, step)
    run.say(f"tracked by {config.tracker.name}, {config.tracker.mode}")
