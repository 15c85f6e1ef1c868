"""Joins the ranks of a run, and exchanges small Python objects between them (`utils.collectives` exchanges tensors).

`python x.py` and `torchrun x.py` run the same lines.  Without torchrun there is no process group: every collective
then returns its argument, and there is one rank, 0.
"""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from utils import cli
from utils.errors import InputError, SettingError

T = TypeVar("T")

OTHER_LAUNCHERS = {
    "Slurm": ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE",),
    "MPI": ("PMI_SIZE", "MV2_COMM_WORLD_SIZE"),
    "jsrun": ("JSM_NAMESPACE_SIZE",),
}
"""Launchers that start several processes, and the variables, the first one first, in which they say how many."""

GLOO_REST = 0.1
"""Seconds for Gloo's threads to free what the last exchanges used."""


def setup(device: Literal["auto", "cuda", "cpu"] = "auto", timeout_minutes: float = 60.0) -> torch.device:
    """Joins the ranks that torchrun has started, if there are any, and returns this rank's device.

    NCCL exchanges tensors on a GPU; Gloo exchanges tensors and objects in host memory.  A second call changes nothing.

    Args:
        device: "auto" takes a GPU if there is one.
        timeout_minutes: how long a collective waits for the slowest rank.

    Raises:
        SettingError: if a GPU is asked for and there is none, if this machine has fewer GPUs than ranks, or if only
            some of torchrun's variables are set, if another launcher has started several processes without torchrun,
            or if the address of rank 0 is not known here.
    """
    _check_launcher()
    cores = cli.usable_cores()
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > cores:
        torch.set_num_threads(cores)
    chosen = _choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if cli.is_launched() and not dist.is_initialized():
        _check_address()
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" and dist.is_nccl_available() else "gloo"
        timeout = timedelta(minutes=timeout_minutes)
        store, rank, ranks = next(rendezvous("env://", timeout=timeout))
        place = dist.PrefixStore(f"generation-{meet(store, rank, ranks, timeout.total_seconds())}", store)
        dist.init_process_group(backend, store=place, rank=rank, world_size=ranks, timeout=timeout)
    return chosen


def _check_launcher() -> None:
    """Raises SettingError if several processes were started, but not as the ranks of one run.

    Each of them would train alone and write to the same folder.
    """
    missing = [name for name in cli.LAUNCHER_VARIABLES if name not in os.environ]
    if missing and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}, but {', '.join(missing)} not set: start with torchrun, or unset it"
        )
    for launcher, names in OTHER_LAUNCHERS.items():
        name = next((name for name in names if name in os.environ), names[0])
        tasks = os.environ.get(name, "1")
        if missing and tasks.isdigit() and int(tasks) > 1:
            raise SettingError(
                f"{launcher} has started {tasks} tasks ({name}), and each would train alone in the same folder: start "
                f"one task per machine that runs torchrun, as examples/slurm does, or set {name}=1"
            )


def _check_address() -> None:
    """Takes this machine's own address for rank 0 where its name does not resolve and all ranks are here.

    torchrun calls rank 0 by the name of its machine.  In containers that name often has no address; every rank would
    then wait for minutes.

    Raises:
        SettingError: if rank 0 may be on another machine.
    """
    address = os.environ["MASTER_ADDR"]
    try:
        socket.getaddrinfo(address, None)
    except OSError:
        if os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]:
            raise SettingError(
                f"MASTER_ADDR={address} has no address on {socket.gethostname()}: give torchrun --local-addr with the "
                "machine's own address on the machine of rank 0"
            ) from None
        os.environ["MASTER_ADDR"] = "127.0.0.1"


def meet(store: dist.Store, rank: int, ranks: int, seconds: float) -> int:
    """Returns a number that all ranks of this start agree on, and that no earlier start of them has used.

    When torchrun restarts its ranks, it keeps the store in which they exchange addresses.  A rank that reads an address
    of the earlier start then waits for a dead process (PyTorch 2.13).  The number is part of the new keys, and the
    ranks agree on it so:

        rank r                             rank 0
        hello/r = a random token    ->     reads the token
        waits for welcome/TOKEN     <-     welcome/TOKEN = number
        here/number/r               ->     returns when here/number/r exists for every r

    A token that a dead rank has left is answered as well, but no process reads the answer.

    Args:
        seconds: how long rank 0 waits for the others; the others wait as long as the store does.

    Raises:
        TimeoutError: naming the ranks that did not answer.
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
    """Leaves the process group, if there is one.

    Args:
        together: wait for all ranks first, so that no rank closes its sockets while another still uses them.
    """
    if dist.is_initialized():
        if together:
            barrier()
        # Gloo's threads may not yet have freed the tensors of the last exchanges, for which they need the GIL.  The
        # destructor of the group joins the threads and holds the GIL: both would wait for ever (PyTorch 2.13).
        time.sleep(GLOO_REST)
        dist.destroy_process_group()


def rank() -> int:
    """Returns the rank of this process; it is also known before `setup` and after `teardown`."""
    if dist.is_initialized():
        return dist.get_rank()
    return cli.launched_rank()


def local_rank() -> int:
    """Returns the rank of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", rank())) if cli.is_launched() else 0


def world_size() -> int:
    """Returns the number of ranks; it is also known before `setup` and after `teardown`."""
    if dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ["WORLD_SIZE"]) if cli.is_launched() else 1


def is_main() -> bool:
    """Returns whether this is rank 0, which names, prints and writes for all."""
    return rank() == 0


def barrier() -> None:
    """Waits until every rank has called this.

    It exchanges in host memory: unlike NCCL's barrier it needs no device and does not wait for the GPU's queue.
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
    """Calls `ask` on rank 0 and returns its answer on every rank.

    Raises:
        InputError: on every rank, if `ask` raises a ValueError or OSError on rank 0.
    """
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
        raise InputError(problem)
    return value  # type: ignore[return-value]


def all_gather_object(value: T) -> list[T]:
    """Returns every rank's value in rank order, on every rank.  Values are pickled, so keep them small."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def _choose_device(device: str) -> torch.device:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SettingError("device=cuda, but PyTorch finds no CUDA device: install a CUDA build or set device=auto")
    if local_rank() >= torch.cuda.device_count():
        raise SettingError(
            f"this machine has {torch.cuda.device_count()} GPUs and at least {local_rank() + 1} ranks: "
            f"start torchrun with --nproc-per-node {torch.cuda.device_count()} or set device=cpu"
        )
    chosen = torch.device("cuda", local_rank())
    check_capability(chosen)
    return chosen


def check_capability(device: torch.device) -> None:
    """Checks that PyTorch was built for a GPU.

    Raises:
        SettingError: if not; every operation would fail.
    """
    built = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name) for name in torch.cuda.get_arch_list()]
    known = [(match[1], int(match[2]), int(match[3])) for match in built if match is not None]
    major, minor = torch.cuda.get_device_capability(device)
    runs = any(
        (x == major and y <= minor) if kind == "sm" else (x, y) <= (major, minor)  # compute_: the driver translates it
        for kind, x, y in known
    )
    if known and not runs:
        lowest, highest = ("{}.{}".format(*pick((x, y) for _, x, y in known)) for pick in (min, max))
        raise SettingError(
            f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, and this PyTorch "
            f"{torch.__version__} was built for {lowest} to {highest}: choose another GPU, "
            "install a build for this one, or set device=cpu"
        )
