"""Exchanges tensors between ranks.  At world size 1 every function returns its argument.

A *rows* tensor has one row per slot of this rank; the local rows of rank r are the r-th contiguous slice of the
global rows.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from utils.errors import SettingError

Sliceable = TypeVar("Sliceable", np.ndarray, Tensor)


def _ranks() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def local_range(rows: int) -> tuple[int, int]:
    """Returns the begin and the end of this rank's rows among `rows` global ones.

    Raises:
        SettingError: if they do not divide by the number of ranks.
    """
    rank, world_size = _ranks()
    if rows % world_size:
        raise SettingError(f"{rows} rows do not divide by {world_size} ranks: choose another number of ranks")
    size = rows // world_size
    return rank * size, (rank + 1) * size


def local_slice(rows: Sliceable) -> Sliceable:
    """Returns this rank's rows of the global rows."""
    first, end = local_range(len(rows))
    return rows[first:end]


def all_gather_rows(rows: Tensor) -> Tensor:
    """Returns the global rows, on every rank."""
    world_size = _ranks()[1]
    if world_size == 1:
        return rows
    slices = [torch.empty_like(rows) for _ in range(world_size)]
    dist.all_gather(slices, rows.contiguous())
    return torch.cat(slices)


def gather_rows_to_main(rows: Tensor) -> Tensor:
    """Returns the global rows on rank 0, in host memory; the other ranks get their own rows back.

    Bool is sent as uint8, which NCCL and Gloo both know.
    """
    rank, world_size = _ranks()
    if world_size == 1:
        return rows.cpu()
    wire = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
    if rank == 0:
        slices = [wire.cpu()]
        for sender in range(1, world_size):
            received = torch.empty_like(wire)
            dist.recv(received, src=sender)
            slices.append(received.cpu())
        return torch.cat(slices).to(rows.dtype)
    dist.send(wire.contiguous(), dst=0)
    return rows


def send_to_main(tensors: dict[str, Tensor] | None, sender: int) -> dict[str, Tensor] | None:
    """Returns on every rank but `sender` what that rank gave, on rank 0 with its tensors and elsewhere with none.

    Tensors are in host memory.  If the sender gives None, every rank gets None.  Collective.
    """
    rank, world_size = _ranks()
    if world_size == 1:
        return tensors
    described = None if tensors is None else {name: (value.shape, value.dtype) for name, value in tensors.items()}
    box = [described]
    dist.broadcast_object_list(box, src=sender)
    if box[0] is None or rank == sender == 0:
        return tensors
    if rank == sender:
        for value in (tensors or {}).values():
            dist.send(value.contiguous(), dst=0)
        return tensors
    if rank:
        return {}
    received = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in box[0].items()}
    for value in received.values():
        dist.recv(value, src=sender)
    return received


def all_reduce_sum(values: Tensor) -> Tensor:
    """Returns the sum over ranks, on every rank."""
    if _ranks()[1] > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def only_on_main(values: Tensor) -> Tensor:
    """Returns the values on rank 0 and zeros elsewhere, so that the sum over ranks is the values."""
    return values if _ranks()[0] == 0 else torch.zeros_like(values)


def gather_objects_to_main(value: Any) -> list[Any] | None:
    """Returns every rank's value in rank order on rank 0, None elsewhere."""
    rank, world_size = _ranks()
    if world_size == 1:
        return [value]
    gathered: list[Any] | None = [None] * world_size if rank == 0 else None
    dist.gather_object(value, gathered, dst=0)
    return gathered


def unsynced(module: nn.Module) -> AbstractContextManager[None]:
    """Returns a block in which a `data_parallel` module only adds up its gradients on this rank.

    The next backward pass outside the block exchanges the sum.
    """
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def data_parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """Returns the module, with its gradients averaged over ranks while the backward pass runs.

    The compiled step stays one graph.  If DDP cut it at its bucket boundaries, the gradient of the puzzle rows would be
    lost (PyTorch 2.13).  This costs no overlap: the backward pass ends with the recursion's first application of the
    weights, and no weight's gradient is complete before that.

    Buffers (the initial latents) are equal on all ranks from the start and never change, so DDP need not send them.
    """
    if _ranks()[1] == 1 or not any(p.requires_grad for p in module.parameters()):
        return module
    torch._dynamo.config.optimize_ddp = False
    names = inspect.signature(DistributedDataParallel).parameters
    setting = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"  # since PyTorch 2.13
    return DistributedDataParallel(
        module,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{setting: False},  # type: ignore[arg-type]
    )
