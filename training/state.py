"""The train state: everything that changes while training, and all that a checkpoint holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dataset.data_shape import DataShape
from models.act import ACTStep, PredictStep
from models.arch import ArchConfig
from models.ema import EMA
from models.losses import IGNORE
from models.network import Network
from models.puzzle_table import PuzzleTable
from training.buckets.slots import Lanes
from training.config import RunConfig
from training.metrics import MetricSums
from training.optim.nonfinite import Guard
from training.optim.optimizers import build_optimizer
from training.prepare import cpu_kernels
from utils import collectives


class TrainState:
    """Network, optimizer, averaged weights, puzzle rows, slots, metric sums since the last line of the log, and the
    number of steps made.

    Args:
        config: the run's settings.
        shape: the data set's.
        device: where everything lives.
    """

    def __init__(self, config: RunConfig, shape: DataShape, device: torch.device) -> None:
        arch: ArchConfig = config.arch
        self.config, self.shape, self.device = config, shape, device
        cpu_kernels.install(device)
        generator = torch.Generator().manual_seed(config.seed)  # every rank draws the same weights
        stride = shape.row_stride or shape.whole.width
        self.network = Network(arch, shape.vocab_size, shape.seq_len, generator, stride).to(device)
        self.network.recomputes = config.activation_checkpointing
        if config.freeze_weights:
            self.network.requires_grad_(False)
        ignore = IGNORE if shape.ignore_label_id is None else shape.ignore_label_id
        self.act_step = ACTStep(self.network, ignore)
        # Compiling in place keeps the parameters' names; torch.compile(module) would prefix them.
        self.predict_step = PredictStep(self.network)
        canvases = shape.canvases or (shape.whole,)
        if config.should_compile(device):
            # Each canvas is a graph of its own, in training and in prediction.
            limit = torch._dynamo.config.recompile_limit
            torch._dynamo.config.recompile_limit = max(limit, 4 * len(canvases))
            self.act_step.compile(dynamic=False)
            self.predict_step.compile(dynamic=False)
        self.module: nn.Module = collectives.data_parallel(self.act_step, device)
        parameters = dict(self.network.named_parameters())
        # On a CPU the update is a few milliseconds of a step, and compiling it ten seconds.
        compiled = config.should_compile(device) and device.type == "cuda"
        self.optimizer = build_optimizer(parameters, config.optimizer, compiled)
        self.ema = EMA(self.network, config.ema_rate) if config.ema and not config.freeze_weights else None
        width = arch.puzzle_emb_ndim
        averaged = config.ema_rate if config.ema and config.ema_puzzle_rows else None
        self.table = PuzzleTable(shape.num_puzzle_identifiers, width, device, averaged) if width else None
        self.guard = Guard(device, skips=config.on_nonfinite == "skip")
        self.sums = MetricSums(config.global_batch_size)
        self.lanes = Lanes(
            self.network, canvases, shape.fractions, config.global_batch_size, config.micro_batch_size, device
        )
        self.step = 0

    def num_bytes(self) -> int:
        """About the size of a checkpoint."""
        table = [] if self.table is None else list(self.table.state_dict().values())
        tensors = [*(p for p in self.network.parameters() for _ in range(4)), *table]
        return self.lanes.num_bytes() + sum(value.numel() * value.element_size() for value in tensors)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Tensors by part and raw name; the carry is this rank's share.  Nothing is copied.  Collective."""
        parts: dict[str, dict[str, Tensor]] = {"network": dict(self.network.state_dict())}
        if self.ema is not None:
            parts["ema"] = self.ema.state_dict()
        if self.optimizer is not None:
            parts["optimizer"] = self.optimizer.state_dict()
        if self.table is not None:
            parts["puzzle_table"] = self.table.state_dict()
        if sums := self.sums.state_dict():
            parts["metrics"] = sums
        if carry := self.lanes.carry_tensors():
            parts["carry"] = carry
        if lanes := self.lanes.state_dict():
            parts["lanes"] = lanes
        return parts

    def load_state_dict(self, parts: dict[str, dict[str, Tensor]], step: int) -> None:
        """The inverse of `state_dict`; `parts["carry"]` holds this rank's share."""
        self.step = step
        self.network.load_state_dict(parts["network"])
        if self.ema is not None:
            self.ema.load_state_dict(parts["ema"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(parts["optimizer"])
        if self.table is not None:
            self.table.load_state_dict(parts["puzzle_table"])
        self.sums.load_state_dict(parts.get("metrics", {}), self.device)
        self.lanes.load_carry(parts.get("carry", {}))
        self.lanes.load_state_dict(parts.get("lanes", {}))
