"""The carry of every slot of a run.

On the whole canvas alone there is one bucket, and a step computes all of its slots: at once, or in several
micro-batches whose gradients add up (`micro_batch_size`).  With several canvases there is a bucket for each, and a step
computes those micro-batches that the scheduler chooses.  Every step computes `global_batch_size` slots:

    one canvas:       30x30  [ slots ]
    micro-batches:    30x30  [ slots ][ slots ][ slots ][ slots ]
    several canvases: 11x11  [ slots ][ slots ]
                      30x30  [ slots ][ slots ][ slots ]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dataset.augmentation import IDENTITY_ROW
from dataset.canvas import Canvas
from dataset.sampling.bucket_streams import Position
from dataset.sampling.joined import Batch
from models.act import Carry, Slots, initial_carry
from models.network import Network
from training.slots.micro_batches import MicroBatch, micro_batch_sizes, split_batch
from training.slots.scheduler import DeficitScheduler
from training.slots.taken import TakenCounter
from utils import distributed
from utils.errors import CheckpointError, SettingError

AUGMENTATION = len(IDENTITY_ROW)
"""Numbers of an augmentation."""

REPORT_EVERY = 8
"""Steps between two reports to the scheduler.  A report arrives one interval late, so that no step waits for the
device."""


@dataclass
class Bucket:
    """The slots of one canvas.

    size: slots of a micro-batch over all ranks.  positions: int64 [S], of the canvas's cells.
    carries: this rank's slice of each micro-batch.  position: where the bucket's stream continues.
    """

    canvas: Canvas
    size: int
    positions: Tensor
    carries: list[Carry] = field(default_factory=list)
    position: Position = field(default_factory=Position)

    @property
    def local_size(self) -> int:
        """Slots of a micro-batch on this rank."""
        return self.size // distributed.world_size()


class Carries:
    """The carries of all slots, by bucket and micro-batch, and how far the buckets' streams are.

    Args:
        canvases: small ones first.
        fractions: of the training examples on each canvas; None with one canvas.
        batch_size, micro_batch_size: the settings `global_batch_size` and `micro_batch_size`.
        has_keys: whether slots have the keys of their examples.

    Raises:
        SettingError: if the micro-batches do not divide by the ranks.
    """

    def __init__(
        self,
        network: Network,
        canvases: Sequence[Canvas],
        fractions: Sequence[float] | None,
        batch_size: int,
        micro_batch_size: int | None,
        device: torch.device,
        has_keys: bool = False,
    ) -> None:
        self.network, self.device, self.batch_size, self.has_keys = network, device, batch_size, has_keys
        arch = network.arch
        sizes = micro_batch_sizes(canvases, fractions or (1.0,), batch_size, micro_batch_size, arch)
        for size in sizes:
            if size % distributed.world_size():
                raise SettingError(
                    f"micro-batches of {size} examples do not divide by {distributed.world_size()} ranks: set "
                    "micro_batch_size to a multiple of their number that divides global_batch_size"
                )
        self.buckets = [
            Bucket(canvas, size, network.positions_of(*canvas, device=device))
            for canvas, size in zip(canvases, sizes, strict=True)
        ]
        self.scheduler: DeficitScheduler | None = None
        if len(canvases) > 1 and fractions:
            self.scheduler = DeficitScheduler(fractions, sizes, batch_size, arch.halt_max_steps)
        self._taken = TakenCounter(len(canvases), device)

    def __iter__(self) -> Iterator[Bucket]:
        return iter(self.buckets)

    @property
    def micro_batch_size(self) -> int:
        """The slots that one canvas computes at once, counted over all ranks."""
        return self.buckets[0].size

    @property
    def opened(self) -> int:
        """The number of buckets that a step has computed."""
        return sum(bool(bucket.carries) for bucket in self.buckets)

    def split(self, batch: Batch | Sequence[MicroBatch]) -> Sequence[MicroBatch]:
        """Returns what a step computes, piece by piece: a batch of the one canvas, or micro-batches as they are."""
        return split_batch(batch, self.buckets[0].local_size) if isinstance(batch, Batch) else batch

    def carry_of(self, micro_batch: MicroBatch, slots: Slots) -> Carry:
        """Returns the carry of a micro-batch.  A new micro-batch gets one in which all slots have halted."""
        carries = self.buckets[micro_batch.bucket].carries
        if micro_batch.number == len(carries):
            carries.append(initial_carry(self.network, slots))
        return carries[micro_batch.number]

    def width_of(self, micro_batch: MicroBatch) -> int:
        """Returns the number of columns of its canvas."""
        return self.buckets[micro_batch.bucket].canvas.width

    def positions_of(self, micro_batch: MicroBatch) -> Tensor:
        """Returns the positions [S] of its cells."""
        return self.buckets[micro_batch.bucket].positions

    def put_back(self, micro_batch: MicroBatch, before: Carry, after: Carry) -> None:
        """Stores the carry of a micro-batch after a step, and counts the examples that its slots took."""
        bucket = self.buckets[micro_batch.bucket]
        bucket.carries[micro_batch.number] = after
        if micro_batch.after is not None:
            bucket.position = micro_batch.after
            self._taken.add(micro_batch.bucket, before.halted)

    def end_step(self, step: int) -> None:
        """Reports to the scheduler every few steps; nothing waits for the device.  Collective."""
        if self.scheduler is None or step % REPORT_EVERY:
            return
        if (taken := self._taken.read_copy()) is not None:
            self.scheduler.report(taken.tolist())
        self.scheduler.begin_report()
        self._taken.begin_copy()

    def expected_slots(self) -> list[int]:
        """Returns how many slots each bucket has over all ranks in the end, if all halt equally fast."""
        return [self.batch_size] if self.scheduler is None else self.scheduler.expected_slots()

    def num_bytes(self) -> int:
        """Returns the bytes of all carries over all ranks, with those that will still be created."""
        arch, latents = self.network.arch, len(self.network.recursion.latents)
        total = 0
        for bucket, expected in zip(self.buckets, self.expected_slots(), strict=True):
            tokens = latents * len(bucket.positions) * arch.hidden_size * arch.dtype.itemsize
            examples = 2 * bucket.canvas.cells + 4  # inputs, labels (uint8), the puzzle (int32)
            examples += 4 + AUGMENTATION if arch.is_composed else 0  # the task (int32), the augmentation (uint8)
            examples += 8 if self.has_keys else 0  # int64
            slots = max(expected, len(bucket.carries) * bucket.size)
            total += slots * (tokens + examples + 4 + 1)  # steps (int32), halted (bool)
        return total

    def carry_tensors(self) -> dict[str, Tensor]:
        """Returns every carry by name, `BUCKET.NUMBER.NAME`.  The first axis is this rank's slice of the slots."""
        return {
            f"{i}.{number}.{name}": value
            for i, bucket in enumerate(self.buckets)
            for number, carry in enumerate(bucket.carries)
            for name, value in name_tensors(carry, self.network.recursion.latents).items()
        }

    def load_carry(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `carry_tensors` returned.

        Raises:
            CheckpointError: if they belong to other canvases or micro-batches.
        """
        counts = [len({k.split(".")[1] for k in tensors if k.startswith(f"{i}.")}) for i in range(len(self.buckets))]
        shapes = {
            f"{i}.{number}.{name}": shape
            for i, bucket in enumerate(self.buckets)
            for number in range(counts[i])
            for name, shape in self._shapes(bucket).items()
        }
        if {key: tuple(value.shape) for key, value in tensors.items()} != shapes:
            raise CheckpointError(
                "the checkpoint's slots are not those of these canvases and micro-batches, or of another version: "
                "start from its weights with load_checkpoint= and another checkpoint_path"
            )
        for i, bucket in enumerate(self.buckets):
            bucket.carries = [self._carry(tensors, f"{i}.{number}.") for number in range(counts[i])]

    def _shapes(self, bucket: Bucket) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each tensor of a carry on this rank."""
        slots, cells = (bucket.local_size,), bucket.canvas.cells
        latent = (*slots, len(bucket.positions), self.network.arch.hidden_size)
        shapes: dict[str, tuple[int, ...]] = {
            **{f"latents.{name}": latent for name in self.network.recursion.latents},
            "steps": slots,
            "halted": slots,
            "data.inputs": (*slots, cells),
            "data.labels": (*slots, cells),
            "data.puzzle_identifiers": slots,
        }
        if self.network.arch.is_composed:
            shapes |= {"data.tasks": slots, "data.augmentations": (*slots, AUGMENTATION)}
        return shapes | ({"data.keys": slots} if self.has_keys else {})

    def _carry(self, tensors: dict[str, Tensor], prefix: str) -> Carry:
        """Returns the carry whose tensors' names begin with `prefix`."""

        def tensor(name: str) -> Tensor:
            return tensors[prefix + name].to(self.device)

        def data(name: str) -> Tensor | None:
            return tensor(f"data.{name}") if f"{prefix}data.{name}" in tensors else None

        latents = tuple(tensor(f"latents.{name}") for name in self.network.recursion.latents)
        slots = Slots(**{name: data(name) for name in Slots._fields})  # type: ignore[arg-type]
        return Carry(latents, tensor("steps"), tensor("halted"), slots)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns where the streams are and the scheduler's state; empty on one canvas.  Collective."""
        if self.scheduler is None:
            return {}
        state = {name: torch.from_numpy(value.copy()) for name, value in self.scheduler.state_dict().items()}
        state["positions"] = torch.tensor([bucket.position for bucket in self.buckets], dtype=torch.int64)
        return state | self._taken.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores what `state_dict` returned, also from older checkpoints.

        Raises:
            CheckpointError: if there are carries and nothing says where the streams are.
        """
        if self.scheduler is None:
            return
        if not state and self.opened:
            raise CheckpointError(
                "the checkpoint does not say where its streams are: start from its weights with load_checkpoint= and "
                "another checkpoint_path"
            )
        if not state:
            return
        self.scheduler.load_state_dict({name: value.numpy() for name, value in state.items()})
        for bucket, (segment, micro_batch) in zip(self.buckets, state["positions"].tolist(), strict=True):
            bucket.position = Position(segment, micro_batch)
        self._taken.load_state_dict(state)


def name_tensors(carry: Carry, latents: tuple[str, ...]) -> dict[str, Tensor]:
    """Returns the tensors of a carry by name; the first axis of each is the slot."""
    named = {f"latents.{name}": z for name, z in zip(latents, carry.latents, strict=True)}
    named |= {"steps": carry.steps, "halted": carry.halted}
    return named | {f"data.{name}": value for name, value in carry.data._asdict().items() if value is not None}
