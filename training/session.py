"""One run of a torchrun script: its ranks, its folder, its log, its data set's identity, its train state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dataset.storage import SplitMetadata, open_manifest
from training import initialise
from training.config import RunConfig
from training.state import DataShape, TrainState
from utils import distributed, runlog


@dataclass
class Run:
    """What lasts from the first line of a script to its last."""

    config: RunConfig
    device: torch.device
    rank: int
    world_size: int
    directory: Path
    metrics: runlog.MetricsLog
    identity: dict[str, Any]
    say: Callable[[str], None]

    @property
    def record(self) -> dict[str, Any]:
        """What a checkpoint says of its run besides the state."""
        return {"config": self.config.model_dump(mode="json"), **self.identity, "git": runlog.git_commit()}


def open_run(config: RunConfig) -> Run:
    """Joins the ranks, names the run and opens its folder (rank 0 names and writes)."""
    device = distributed.setup(config.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    if config.global_batch_size % distributed.world_size():
        raise ValueError(
            f"global_batch_size={config.global_batch_size} does not divide by {distributed.world_size()} ranks"
        )
    manifests = [open_manifest(Path(path)) for path in config.data_paths]
    identity = {
        "data": [manifest.fingerprint if manifest else None for manifest in manifests],
        "puzzles": "+".join(manifest.puzzles if manifest else "?" for manifest in manifests),
    }
    name = distributed.broadcast_object(config.run_name or runlog.random_name())
    folder = config.checkpoint_path or str(Path("checkpoints") / (config.project_name or "trm") / name)
    run = runlog.open_directory(
        Path(folder), name, config.model_dump(mode="json"), [m.model_dump(mode="json") for m in manifests if m]
    )
    run.say(f"run {name} in {folder} on {distributed.world_size()} x {device.type}")
    return Run(
        config, device, distributed.rank(), distributed.world_size(), Path(folder), run.metrics, identity, run.say
    )


def build_state(run: Run, metadata: SplitMetadata) -> TrainState:
    """The train state for a data set, with fresh weights."""
    return TrainState(run.config, DataShape.of(metadata), run.device)


def start(run: Run, state: TrainState, rows_from: str) -> str:
    """Resumes or initialises the state (`training.initialise.start`) and cuts the log to where it goes on."""
    said = initialise.start(state, run.directory, rows_from, run.identity)
    run.metrics.truncate_after(state.step)
    return said
