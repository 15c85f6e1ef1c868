"""Tensors between ranks.  Every function does nothing, or the obvious, at world size 1.

A *rows* tensor holds one row per slot; rank r's share is the r-th contiguous slice of the global rows.
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

Sliceable = TypeVar("Sliceable", np.ndarray, Tensor)


def _ranks() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def local_range(rows: int) -> tuple[int, int]:
    """The first and the end of this rank's share of so many global rows.

    Raises:
        ValueError: if they do not divide by the number of ranks.
    """
    rank, world_size = _ranks()
    if rows % world_size:
        raise ValueError(f"{rows} rows do not divide by {world_size} ranks: choose another number of ranks")
    share = rows // world_size
    return rank * share, (rank + 1) * share


def local_slice(rows: Sliceable) -> Sliceable:
    """This rank's share of global rows."""
    first, end = local_range(len(rows))
    return rows[first:end]


def all_gather_rows(rows: Tensor) -> Tensor:
    """The global rows on every rank."""
    world_size = _ranks()[1]
    if world_size == 1:
        return rows
    shares = [torch.empty_like(rows) for _ in range(world_size)]
    dist.all_gather(shares, rows.contiguous())
    return torch.cat(shares)


def gather_rows_to_main(rows: Tensor) -> Tensor:
    """The global rows on rank 0, in host memory; this rank's own elsewhere.  Bool travels as uint8."""
    rank, world_size = _ranks()
    if world_size == 1:
        return rows.cpu()
    wire = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
    if rank == 0:
        shares = [wire.cpu()]
        for sender in range(1, world_size):
            share = torch.empty_like(wire)
            dist.recv(share, src=sender)
            shares.append(share.cpu())
        return torch.cat(shares).to(rows.dtype)
    dist.send(wire.contiguous(), dst=0)
    return rows


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum over ranks, on every rank."""
    if _ranks()[1] > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def only_on_main(values: Tensor) -> Tensor:
    """The values on rank 0, zeros elsewhere: what sums over ranks to the values."""
    return values if _ranks()[0] == 0 else torch.zeros_like(values)


def gather_objects_to_main(value: Any) -> list[Any] | None:
    """Every rank's value in rank order on rank 0, None elsewhere."""
    rank, world_size = _ranks()
    if world_size == 1:
        return [value]
    gathered: list[Any] | None = [None] * world_size if rank == 0 else None
    dist.gather_object(value, gathered, dst=0)
    return gathered


def unsynced(module: nn.Module) -> AbstractContextManager[None]:
    """Within the block the backward passes of a `data_parallel` module add up on this rank alone; the next one outside
    exchanges the sum."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def data_parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with its gradients averaged over ranks while the backward pass runs.

    The compiled step stays one graph: cut at DDP's bucket boundaries it loses the gradient of the puzzle rows (PyTorch
    2.13).  Nothing overlaps less for it, since the recursion ends its use of every weight in its first application,
    which is the last thing of the backward pass.

    Buffers (the initial latents) are the same everywhere from the start and never change, so none are broadcast.
    """
    if _ranks()[1] == 1 or not any(p.requires_grad for p in module.parameters()):
        return module
    torch._dynamo.config.optimize_ddp = False
    names = inspect.signature(DistributedDataParallel).parameters
    unsynced = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"  # since PyTorch 2.13
    return DistributedDataParallel(
        module,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{unsynced: False},  # type: ignore[arg-type]
    )
