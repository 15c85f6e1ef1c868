"""What the torchrun scripts do before and around training: ranks, run folder, what to start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dataset import storage
from dataset.batches import JoinedSplits
from training import initialise
from training.config import RunConfig
from training.state import DataShape, TrainState
from utils import distributed, runlog


@dataclass(frozen=True)
class Run:
    """What lasts from the first line of a script to its last.

    identity: `data`, what training reads of each data set, and `puzzles`, which puzzle each identifier stands for.
    """

    config: RunConfig
    device: torch.device
    rank: int
    world_size: int
    folder: runlog.RunDirectory
    identity: dict[str, Any]

    @property
    def directory(self) -> Path:
        return self.folder.path

    @property
    def metrics(self) -> runlog.MetricsLog:
        return self.folder.metrics

    @property
    def say(self) -> Callable[[str], None]:
        return self.folder.say

    @property
    def record(self) -> dict[str, Any]:
        """What a checkpoint says of its run besides the state."""
        return {"config": self.config.model_dump(mode="json"), **self.identity, "git": runlog.git_commit()}


def open_run(config: RunConfig) -> Run:
    """Joins the ranks, checks the data, opens the run's folder (rank 0 names it and writes).

    Raises:
        ValueError: naming what does not fit together, before anything is written.
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
        lambda: [storage.fingerprints(path, config.verify_data) for path in config.data_paths]
    )
    identity = {"data": [data for data, _ in prints], "puzzles": "+".join(puzzles for _, puzzles in prints)}
    name = config.run_name or runlog.random_name()
    folder = Path(config.checkpoint_path or Path("checkpoints") / (config.project_name or "trm") / name)
    name = runlog.name_of(folder) or name
    directory = runlog.open_directory(folder, distributed.broadcast_object(name))
    why = config.not_compiled_because(device)
    directory.say(
        f"run {directory.name} in {folder} on {distributed.world_size()} x {device.type}" + (why and f"; {why}")
    )
    return Run(config, device, distributed.rank(), distributed.world_size(), directory, identity)


def build_state(run: Run, data: JoinedSplits) -> TrainState:
    """The train state for the data sets, with fresh weights."""
    return TrainState(run.config, DataShape.of(data.metadata, data.num_puzzle_identifiers), run.device)


def start(run: Run, state: TrainState) -> str:
    """Resumes or initialises the state (`training.initialise.start`), then writes what the run is made with and cuts
    the log to where it goes on."""
    said = initialise.start(state, run.directory, run.identity)
    manifests = [storage.open_manifest(path) for path in run.config.data_paths]
    runlog.describe(
        run.folder, run.config.model_dump(mode="json"), [m.model_dump(mode="json") for m in manifests if m is not None]
    )
    run.metrics.truncate_after(state.step)
    return said
