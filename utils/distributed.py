"""The ranks of a run.  `python x.py` and `torchrun x.py` run the same lines: alone, every function here does the
obvious without a process group.

`utils.collectives` exchanges tensors; this module starts and ends the group and exchanges small Python objects.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")

_LAUNCHER_SETS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def setup(device: Literal["auto", "cuda", "cpu"] = "auto", timeout_minutes: float = 60.0) -> torch.device:
    """Joins the ranks that torchrun has started, if it has, and picks this rank's device.

    Tensors on a GPU travel by NCCL, tensors and objects in host memory by Gloo.  Calling it again changes nothing.

    Args:
        device: "auto" takes a GPU where there is one.
        timeout_minutes: how long a collective waits for the slowest rank.

    Raises:
        ValueError: if a GPU is asked for and there is none, if this machine has fewer of them than ranks, or if only
            some of torchrun's variables are set (every process would train alone and write to the same folder).
    """
    missing = [name for name in _LAUNCHER_SETS if name not in os.environ]
    if missing and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}, but {', '.join(missing)} not set: start with torchrun, or unset it"
        )
    chosen = _choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if is_launched() and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" and dist.is_nccl_available() else "gloo"
        timeout = timedelta(minutes=timeout_minutes)
        store, rank, ranks = next(rendezvous("env://", timeout=timeout))
        place = dist.PrefixStore(f"generation-{meet(store, rank, ranks, timeout.total_seconds())}", store)
        dist.init_process_group(backend, store=place, rank=rank, world_size=ranks, timeout=timeout)
    return chosen


def meet(store: dist.Store, rank: int, ranks: int, seconds: float) -> int:
    """Agrees among ranks that have just been started on a number that no earlier start of them has had.

    When torchrun restarts its ranks, it keeps the store that they exchange addresses in, and a rank that reads an
    address of the start before waits for the dead (PyTorch 2.13).  So every rank says hello with a token of its own,
    rank 0 answers each token with the number, and is done when it has seen every rank answer in turn: what the dead
    have left is answered too, but nobody hears it.

    Args:
        seconds: how long rank 0 waits for the others; these wait as long as the store does.

    Raises:
        TimeoutError: naming the ranks that did not come.
    """
    if rank:
        token = uuid.uuid4().hex
        store.set(f"hello/{rank}", token)
        generation = store.get(f"welcome/{token}").decode()
        store.set(f"here/{generation}/{rank}", "")
        return int(generation)
    number = int(store.add("generation", 1))
    missing = list(range(1, ranks))
    welcomed: set[str] = set()
    until = time.monotonic() + seconds
    while missing:
        for other in missing:
            if store.check([f"hello/{other}"]) and (token := store.get(f"hello/{other}").decode()) not in welcomed:
                store.set(f"welcome/{token}", str(number))
                welcomed.add(token)
        missing = [other for other in missing if not store.check([f"here/{number}/{other}"])]
        if missing and time.monotonic() > until:
            raise TimeoutError(f"of {ranks} ranks {missing} did not come within {seconds:.0f} s: look into their logs")
        time.sleep(0.02 if missing else 0)
    return number


def teardown(together: bool = True) -> None:
    """Leaves the group, if there is one.

    Args:
        together: wait for all ranks first, so that none takes its sockets away while another still uses them.
    """
    if dist.is_initialized():
        if together:
            barrier()
        dist.destroy_process_group()


def rank() -> int:
    """This process among all of the run, known before `setup` and after `teardown` too."""
    if dist.is_initialized():
        return dist.get_rank()
    return int(os.environ["RANK"]) if is_launched() else 0


def local_rank() -> int:
    """This process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", rank())) if is_launched() else 0


def world_size() -> int:
    """The processes of the run, known before `setup` and after `teardown` too."""
    if dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def is_main() -> bool:
    """Whether this rank names, prints and writes for all."""
    return rank() == 0


def barrier() -> None:
    """Waits until every rank is here.

    An exchange in host memory: unlike NCCL's barrier it needs no device and does not wait for the GPU's queue.
    """
    all_gather_object(None)


def broadcast_object(value: T, source: int = 0) -> T:
    """The `source` rank's value, on every rank.  It is pickled, so keep it small."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=source)
    return box[0]


def from_main(ask: Callable[[], T]) -> T:
    """What `ask` answers on rank 0, on every rank; a ValueError or OSError that it raises there is raised on all."""
    if world_size() == 1:
        return ask()
    answer: tuple[T | None, str | None] = (None, None)
    if is_main():
        try:
            answer = (ask(), None)
        except (ValueError, OSError) as error:
            answer = (None, str(error))
    value, problem = broadcast_object(answer)
    if problem is not None:
        raise ValueError(problem)
    return value  # type: ignore[return-value]


def all_gather_object(value: T) -> list[T]:
    """Every rank's value in rank order, on every rank.  They are pickled, so keep them small."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def is_launched() -> bool:
    """Whether torchrun, or something that sets the same variables, has started this process."""
    return all(name in os.environ for name in _LAUNCHER_SETS)


def _choose_device(device: str) -> torch.device:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("device=cuda, but PyTorch finds no CUDA device: install a CUDA build or set device=auto")
    if local_rank() >= torch.cuda.device_count():
        raise ValueError(
            f"this machine has {torch.cuda.device_count()} GPUs and at least {local_rank() + 1} ranks: "
            f"start torchrun with --nproc-per-node {torch.cuda.device_count()} or set device=cpu"
        )
    return torch.device("cuda", local_rank())
