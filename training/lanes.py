"""The slots of a run: in lanes, one per canvas, and within a lane in chunks that are computed at once.

On the whole canvas alone there is one lane, and a step advances all of its chunks: one, or several where
`micro_batch_size` says so (their gradients add up).  With more canvases a step advances those whose turn it is
(`training.rota`).  Every step advances `global_batch_size` slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from dataset.batches import Batch
from dataset.canvases import Canvas
from dataset.lanes import Position
from models.act import Carry, Slots, initial_carry
from models.arch import ArchConfig
from models.network import Network
from training.costs import block_flop
from training.rota import Rota
from utils import collectives, distributed

REPORT_EVERY = 8
"""Steps between two looks at what the lanes have taken, each of which learns what was so at the one before."""

CHUNKS_PER_STEP = 8
"""Where several canvases leave `micro_batch_size` open, a step of the largest alone would be so many chunks or more."""


TRIAL_TURNS = 100


class Part(NamedTuple):
    """What a chunk is given in a step: this rank's share of the next examples of its slots.

    after: where the lane's stream goes on, with several canvases.
    """

    lane: int
    chunk: int
    batch: Batch
    after: Position | None = None


def whole(batch: Batch) -> list[Part]:
    """A step on one canvas in one piece."""
    return [Part(0, 0, batch)]


def example_cost(arch: ArchConfig, cells: int) -> float:
    """FLOP of one example in one application of one block, by the cells of its canvas."""
    return block_flop(arch, arch.prefix_len + cells)


@dataclass
class Lane:
    """The slots of one canvas.

    chunk_size: slots of a chunk over all ranks.  positions: int64 [S], of the places of the canvas.
    chunks: this rank's share of each.  position: where its stream goes on.
    """

    canvas: Canvas
    chunk_size: int
    positions: Tensor
    chunks: list[Carry] = field(default_factory=list)
    position: Position = field(default_factory=Position)


def chunk_sizes(
    canvases: Sequence[Canvas], shares: Sequence[float], batch_size: int, micro: int | None, arch: ArchConfig
) -> list[int]:
    """Slots of a chunk of each canvas over all ranks: such that chunks cost about the same, a power of two times that
    of the largest canvas that has a share.  Every size divides the batch: what a step has left never has to go to
    small chunks, whatever their lanes' share.

    Args:
        micro: `micro_batch_size`.

    Raises:
        ValueError: if it does not divide the batch.
    """
    if micro is not None and batch_size % micro:
        raise ValueError(
            f"micro_batch_size={micro} does not divide global_batch_size={batch_size}: choose a divisor of it"
        )
    if len(canvases) == 1:
        return [micro or batch_size]
    unit = micro or _largest_power_of_two(batch_size, at_most=max(1, batch_size // CHUNKS_PER_STEP))
    costs = [example_cost(arch, canvas.cells) for canvas in canvases]
    largest = max(cost for cost, share in zip(costs, shares, strict=True) if share > 0)
    sizes = []
    for cost, share in zip(costs, shares, strict=True):
        times = 1
        # No more slots than the lane keeps busy in every step.
        while (
            2 * times * cost <= largest
            and 2 * times * unit <= share * batch_size
            and batch_size % (2 * times * unit) == 0
        ):
            times *= 2
        sizes.append(times * unit)
    return sizes


def _largest_power_of_two(number: int, at_most: int) -> int:
    """That divides `number`: ranks are mostly powers of two, and each computes its share of every chunk."""
    power = number & -number
    while power > at_most:
        power //= 2
    return power


class Lanes:
    """All slots of a run, and how far their streams are.

    Args:
        canvases: small ones first.  shares: of the examples of each in the data; None for one canvas alone.
    """

    def __init__(
        self,
        network: Network,
        canvases: Sequence[Canvas],
        shares: Sequence[float] | None,
        batch_size: int,
        micro: int | None,
        device: torch.device,
    ) -> None:
        self.network, self.device = network, device
        self.batch_size = batch_size
        self._shares = shares or (1.0,)
        sizes = chunk_sizes(canvases, shares or (1.0,), batch_size, micro, network.arch)
        for size in sizes:
            if size % distributed.world_size():
                raise ValueError(
                    f"chunks of {size} examples do not divide by {distributed.world_size()} ranks: set "
                    "micro_batch_size to a multiple of their number that divides global_batch_size"
                )
        self.lanes = [
            Lane(canvas, size, network.positions_of(*canvas, device=device))
            for canvas, size in zip(canvases, sizes, strict=True)
        ]
        self.rota = (
            Rota(shares, sizes, batch_size, network.arch.halt_max_steps) if len(canvases) > 1 and shares else None
        )
        self._taken = torch.zeros(len(canvases), dtype=torch.int64, device=device)
        self._report: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def __iter__(self) -> Iterator[Lane]:
        return iter(self.lanes)

    @property
    def opened(self) -> int:
        """How many lanes have had a turn."""
        return sum(bool(lane.chunks) for lane in self.lanes)

    def carry_for(self, part: Part, slots: Slots) -> Carry:
        """The carry of a part's chunk, made at its first turn."""
        chunks = self.lanes[part.lane].chunks
        if part.chunk == len(chunks):
            chunks.append(initial_carry(self.network, slots))
        return chunks[part.chunk]

    def advance(self, part: Part, before: Carry, after: Carry) -> None:
        """Puts back a part's slots after a step, and counts the examples that they took."""
        lane = self.lanes[part.lane]
        lane.chunks[part.chunk] = after
        if part.after is not None:
            lane.position = part.after
            self._taken[part.lane] += before.halted.sum()

    def end_step(self, step: int) -> None:
        """Tells the rota now and then what the lanes have taken.  Nothing waits for the device: what was asked for is
        read some steps later.  Collective."""
        if self.rota is None or step % REPORT_EVERY:
            return
        if self._report is not None:
            self.rota.report(self._read_report().tolist())
        self.rota.ask()
        self._send_report(collectives.all_reduce_sum(self._taken))

    def _send_report(self, taken: Tensor) -> None:
        if self.device.type == "cuda":
            self._report = torch.empty(taken.shape, dtype=taken.dtype, pin_memory=True)
            self._report.copy_(taken, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._report = taken.clone()

    def _read_report(self) -> Tensor:
        assert self._report is not None
        if self._copied is not None:
            self._copied.synchronize()
        return self._report

    def expected(self) -> list[int]:
        """How many slots each lane has over all ranks once all have had turns, if all halt equally fast."""
        if self.rota is None:
            return [self.batch_size]
        trial = Rota(self._shares, self.rota.sizes.tolist(), self.batch_size, self.rota.most_steps)
        for _ in range(TRIAL_TURNS):
            trial.turn()
        return (trial.pools * trial.sizes).tolist()

    def num_bytes(self) -> int:
        """About the size of all slots' latents over all ranks, of those too that are yet to be made."""
        arch = self.network.arch
        per_place = len(self.network.recursion.latents) * arch.hidden_size * arch.dtype.itemsize
        there = zip(self.lanes, self.expected(), strict=True)
        return (
            sum(max(number, len(lane.chunks) * lane.chunk_size) * len(lane.positions) for lane, number in there)
            * per_place
        )

    def carry_tensors(self) -> dict[str, Tensor]:
        """Every chunk's carry by name; the first axis of each is this rank's share of the slots."""
        return {
            f"{i}.{j}.{name}": value
            for i, lane in enumerate(self.lanes)
            for j, carry in enumerate(lane.chunks)
            for name, value in carry_tensors(carry, self.network.recursion.latents).items()
        }

    def load_carry(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `carry_tensors`.

        Raises:
            ValueError: if they are not those of lanes like these.
        """
        latents = self.network.recursion.latents
        names = (*(f"latents.{name}" for name in latents), "steps", "halted", *(f"data.{f}" for f in Slots._fields))
        shapes: dict[str, tuple[int, ...]] = {}
        counts = [len({k.split(".")[1] for k in tensors if k.startswith(f"{i}.")}) for i in range(len(self.lanes))]
        for i, lane in enumerate(self.lanes):
            slots, cells = lane.chunk_size // distributed.world_size(), lane.canvas.cells
            more: dict[str, tuple[int, ...]] = {
                f"latents.{name}": (len(lane.positions), self.network.arch.hidden_size) for name in latents
            }
            more |= {"data.inputs": (cells,), "data.labels": (cells,)}
            shapes |= {f"{i}.{j}.{name}": (slots, *more.get(name, ())) for j in range(counts[i]) for name in names}
        if {key: tuple(value.shape) for key, value in tensors.items()} != shapes:
            raise ValueError(
                "the checkpoint's slots are not those of these canvases and chunks, or of another version: start from "
                "its weights with load_checkpoint= and another checkpoint_path"
            )
        for i, lane in enumerate(self.lanes):
            chunks = [{name: tensors[f"{i}.{j}.{name}"].to(self.device) for name in names} for j in range(counts[i])]
            lane.chunks = [
                Carry(
                    tuple(of[f"latents.{name}"] for name in latents),
                    of["steps"],
                    of["halted"],
                    Slots(*(of[f"data.{name}"] for name in Slots._fields)),
                )
                for of in chunks
            ]

    def state_dict(self) -> dict[str, Tensor]:
        """Where the streams are and whose turn it is; empty for one canvas.  Collective."""
        if self.rota is None:
            return {}
        named = {name: torch.from_numpy(value.copy()) for name, value in self.rota.state_dict().items()}
        named["positions"] = torch.tensor([lane.position for lane in self.lanes], dtype=torch.int64)
        named["taken"] = collectives.all_reduce_sum(self._taken).cpu()
        if self._report is not None:
            named["report"] = self._read_report().clone()
        return named

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if self.rota is None:
            return
        if not state and any(lane.chunks for lane in self.lanes):
            raise ValueError(
                "the checkpoint does not say where its streams are: start from its weights with load_checkpoint= and "
                "another checkpoint_path"
            )
        if not state:
            return
        self.rota.load_state_dict({name: value.numpy() for name, value in state.items()})
        for lane, (segment, chunk) in zip(self.lanes, state["positions"].tolist(), strict=True):
            lane.position = Position(segment, chunk)
        self._taken = collectives.only_on_main(state["taken"].to(self.device))
        self._report, self._copied = state.get("report"), None


def carry_tensors(carry: Carry, latents: tuple[str, ...]) -> dict[str, Tensor]:
    """A carry as named tensors whose first axis is the slot."""
    named = {f"latents.{name}": z for name, z in zip(latents, carry.latents, strict=True)}
    named |= {"steps": carry.steps, "halted": carry.halted}
    return named | {f"data.{name}": value for name, value in carry.data._asdict().items()}
