"""The train state: everything that changes while training, and all that a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.act import ACTStep, Carry, Slots, initial_carry
from models.arch import ArchConfig
from models.ema import EMA
from models.losses import IGNORE
from models.network import Network
from models.puzzle_table import PuzzleTable
from training.config import RunConfig
from training.optimizers import build_optimizer
from utils import collectives


@dataclass(frozen=True)
class DataShape:
    """What the network must know of a data set (`dataset.storage.SplitMetadata` has these fields)."""

    vocab_size: int
    seq_len: int
    num_puzzle_identifiers: int
    ignore_label_id: int | None

    @classmethod
    def of(cls, metadata: Any) -> DataShape:
        return cls(**{name: getattr(metadata, name) for name in cls.__dataclass_fields__})


class TrainState:
    """Network, optimizer, averaged weights, puzzle rows, slots, and the number of steps made.

    Args:
        config: the run's settings.
        shape: the data set's.
        device: where everything lives.
    """

    def __init__(self, config: RunConfig, shape: DataShape, device: torch.device) -> None:
        arch: ArchConfig = config.arch
        self.config, self.shape, self.device = config, shape, device
        generator = torch.Generator().manual_seed(config.seed)  # every rank draws the same weights
        self.network = Network(arch, shape.vocab_size, shape.seq_len, generator).to(device)
        if config.freeze_weights:
            self.network.requires_grad_(False)
        ignore = IGNORE if shape.ignore_label_id is None else shape.ignore_label_id
        self.act_step = ACTStep(self.network, ignore)
        # Compiling in place keeps the parameters' names; torch.compile(module) would prefix them.
        if config.should_compile(device):
            self.act_step.compile(dynamic=False)
        self.module: nn.Module = collectives.data_parallel(self.act_step, device)
        self.optimizer = None if config.freeze_weights else build_optimizer(self.network.parameters(), config.optimizer)
        self.ema = EMA(self.network, config.ema_rate) if config.ema and not config.freeze_weights else None
        width = arch.puzzle_emb_ndim
        self.table = PuzzleTable(shape.num_puzzle_identifiers, width, device) if width else None
        self.carry: Carry | None = None
        self.step = 0

    def carry_for(self, batch: Slots) -> Carry:
        """The carry, made at the first batch."""
        if self.carry is None:
            self.carry = initial_carry(self.network, batch)
        return self.carry

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Tensors by part and raw name; the carry is this rank's share.  Nothing is copied."""
        parts: dict[str, dict[str, Tensor]] = {"network": dict(self.network.state_dict())}
        if self.ema is not None:
            parts["ema"] = self.ema.state_dict()
        if self.optimizer is not None:
            names = self._trainable_names()
            parts["optimizer"] = {
                f"{key}.{names[p]}": torch.as_tensor(value)
                for p, slots in self.optimizer.state.items()
                for key, value in slots.items()
            }
        if self.table is not None:
            parts["puzzle_table"] = self.table.state_dict()
        if self.carry is not None:
            parts["carry"] = carry_tensors(self.carry, self.network.recursion.latents)
        return parts

    def load_state_dict(self, parts: dict[str, dict[str, Tensor]], step: int) -> None:
        """The inverse of `state_dict`; `parts["carry"]` holds this rank's share."""
        self.step = step
        self.network.load_state_dict(parts["network"])
        if self.ema is not None:
            self.ema.load_state_dict(parts["ema"])
        if self.optimizer is not None:
            for name, p in self.network.named_parameters():
                slots = {}
                for key in ("steps", "exp_avg", "exp_avg_sq"):
                    value = parts["optimizer"].get(f"{key}.{name}")
                    if value is not None:
                        slots[key] = int(value) if key == "steps" else value.to(self.device)
                if slots:
                    self.optimizer.state[p] = slots
        if self.table is not None:
            self.table.load_state_dict(parts["puzzle_table"])
        if "carry" in parts:
            tensors = {key: value.to(self.device) for key, value in parts["carry"].items()}
            self.carry = Carry(
                tuple(tensors[f"latents.{name}"] for name in self.network.recursion.latents),
                tensors["steps"],
                tensors["halted"],
                Slots(*(tensors[f"data.{field}"] for field in Slots._fields)),
            )

    def _trainable_names(self) -> dict[Tensor, str]:
        return {p: name for name, p in self.network.named_parameters()}


def carry_tensors(carry: Carry, latents: tuple[str, ...]) -> dict[str, Tensor]:
    """A carry as named tensors whose first axis is the slot."""
    named = {f"latents.{name}": z for name, z in zip(latents, carry.latents, strict=True)}
    named |= {"steps": carry.steps, "halted": carry.halted}
    return named | {f"data.{field}": value for field, value in carry.data._asdict().items()}
