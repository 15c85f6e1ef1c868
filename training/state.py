"""The train state: everything that changes while training, and all that a checkpoint stores."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from dataset.data_shape import DataShape
from dataset.encoding import VOCAB_SIZE
from models.act import ACTStep, PredictStep
from models.ema import EMA
from models.losses import IGNORE, Supervision
from models.network import Network
from models.puzzles.table import PuzzleTable
from models.recursion import Depth
from training.config import TrainConfig
from training.metrics.sums import MetricSums
from training.optim.nonfinite import NonFiniteGuard
from training.optim.optimizers import build_optimizer
from training.slots.carries import Carries
from training.slots.tables.row_tables import RowTables
from utils import distributed
from utils.errors import SettingError

Parts = dict[str, dict[str, Tensor]]
"""Tensors by part of the state and name."""


class TrainState:
    """What survives a restart: network, optimizer, averaged weights, puzzle rows, the slots' carries, the metric sums
    since the last line of the log, and the number of steps made.

    The network is plain: `training.prepare` compiles it and makes it data parallel.

    Args:
        config: settings of the network and its training.
        shape: of the data sets.
        device: where everything is stored, but for puzzle rows that the settings place elsewhere.
        directory: the run's folder, for the file of `puzzle_table=disk`; None: that of temporary files.
    """

    def __init__(
        self, config: TrainConfig, shape: DataShape, device: torch.device, directory: Path | None = None
    ) -> None:
        self.config, self.shape, self.device = config, shape, device
        self.network = build_network(config, shape, device)
        supervision = supervision_of(config, shape)
        ignored = IGNORE if shape.ignore_label_id is None else shape.ignore_label_id
        self.act_step = ACTStep(self.network, ignored, supervision)
        self.predict_step = PredictStep(self.network)
        self.module: nn.Module = self.act_step  # what training calls: `act_step`, data parallel once it is prepared

        averages = config.ema and not config.freeze_weights
        self.optimizer = build_optimizer(dict(self.network.named_parameters()), config, config.arch.dtype)
        self.ema = EMA(self.network, config.ema_rate) if averages else None
        rates = config.ema_more_rates if averages else []
        self.more_emas = {f"ema_{rate}": EMA(self.network, rate) for rate in rates}
        self.tables = RowTables(config, shape, device, directory or Path(tempfile.gettempdir()))

        self.carries = Carries(
            self.network,
            shape.canvases or (shape.whole,),
            shape.fractions,
            config.global_batch_size,
            config.micro_batch_size,
            device,
            has_keys=supervision.needs_keys,
        )
        self.traced: set[tuple[int, Depth | None]] = set()  # canvases and depths of steps: each is a graph
        self.guard = NonFiniteGuard(device, skips=config.on_nonfinite == "skip")
        self.sums = MetricSums(config.global_batch_size)
        self.step = 0

    @property
    def table(self) -> PuzzleTable | None:
        """The rows of puzzles, or of tasks of a composed embedding."""
        return self.tables.main

    @table.setter
    def table(self, table: PuzzleTable | None) -> None:
        self.tables.main = table

    @property
    def averages(self) -> list[EMA]:
        """All averages of the weights, that of `ema_rate` first."""
        return ([] if self.ema is None else [self.ema]) + list(self.more_emas.values())

    @property
    def is_ready(self) -> bool:
        """Whether a step would train all ranks alike: `prepare` was called, or there is one rank."""
        return self.module is not self.act_step or distributed.world_size() == 1 or self.optimizer is None

    def num_bytes(self) -> int:
        """Returns the size of a checkpoint, with the slots that will still be created.

        Puzzle rows and file headers are not counted.
        """
        tensors = (value for part in self._parts().values() for value in part.values())
        return self.carries.num_bytes() + sum(value.numel() * value.element_size() for value in tensors)

    def _parts(self) -> Parts:
        """Returns what all ranks store alike.  Nothing is copied."""
        stored = {"ema": self.ema, **self.more_emas, "optimizer": self.optimizer}
        parts: Parts = {"network": dict(self.network.state_dict())}
        return parts | {name: part.state_dict() for name, part in stored.items() if part is not None}

    def state_dict(self) -> Parts:
        """Returns tensors by part and raw name; the carry is this rank's slice.  Nothing is copied.  Collective.

        The puzzle rows are not among them: a checkpoint stores what has changed of them
        (`training.checkpoint.row_files`).
        """
        shared = {"metrics": self.sums.state_dict(), "carry": self.carries.carry_tensors()}
        shared["buckets"] = self.carries.state_dict()
        return self._parts() | {name: tensors for name, tensors in shared.items() if tensors}

    def load_state_dict(self, parts: Parts, step: int) -> None:
        """Restores what `state_dict` returned; `parts["carry"]` is this rank's slice."""
        self.step = step
        self.network.load_state_dict(parts["network"])
        if self.ema is not None:
            self.ema.load_state_dict(parts["ema"])
        for name, average in self.more_emas.items():
            average.load_state_dict(parts[name])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(parts["optimizer"])
        self.sums.load_state_dict(parts.get("metrics", {}), self.device)
        self.carries.load_carry(parts.get("carry", {}))
        self.carries.load_state_dict(parts.get("buckets", parts.get("lanes", {})))  # lanes: the part's older name


def supervision_of(config: TrainConfig, shape: DataShape) -> Supervision:
    """Returns how the settings supervise the steps of an example.

    Raises:
        SettingError: if targets are hidden, and the data set has no token to hide them by.
    """
    ignored = shape.ignore_label_id
    if config.sharpening_targets and (ignored is None or not 0 <= ignored < shape.vocab_size):
        raise SettingError(
            "sharpening_targets=true hides cells by the token of cells without a label, and the data set has no such "
            f"token (ignore_label_id is {ignored}): set it to false"
        )
    return Supervision(config.sharpening_targets, config.step_weights, config.latent_noise, config.random_starts)


def build_network(config: TrainConfig, shape: DataShape, device: torch.device) -> Network:
    """Returns a fresh network.  Every rank draws the same weights.

    Raises:
        SettingError: if its puzzle embedding is composed of what the data set does not have.
    """
    if config.arch.is_composed and shape.vocab_size != VOCAB_SIZE:
        raise SettingError(
            f"arch.puzzle_embedding=composed is about the colours of ARC, and the data set has {shape.vocab_size} "
            "other tokens: set arch.puzzle_embedding=table"
        )
    generator = torch.Generator().manual_seed(config.seed)
    stride = shape.row_stride or shape.whole.width
    network = Network(config.arch, shape.vocab_size, shape.seq_len, generator, stride).to(device)
    network.activation_checkpointing = config.activation_checkpointing
    return network.requires_grad_(not config.freeze_weights)
