"""Counts on the device how many examples each bucket has taken, and reads the counts without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor

from utils import collectives


class TakenCounter:
    """The examples that each bucket has taken, int64 [buckets].  A copy to the host is read some steps later."""

    def __init__(self, buckets: int, device: torch.device) -> None:
        self._device = device
        self._taken = torch.zeros(buckets, dtype=torch.int64, device=device)
        self._copy: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def add(self, bucket: int, halted: Tensor) -> None:
        """Counts the slots that had halted before a step: each of them took an example."""
        self._taken[bucket] += halted.sum()

    def begin_copy(self) -> None:
        """Sums the counts over ranks and begins to copy them to the host.  Collective."""
        taken = collectives.all_reduce_sum(self._taken)
        if self._device.type == "cuda":
            self._copy = torch.empty(taken.shape, dtype=taken.dtype, pin_memory=True)
            self._copy.copy_(taken, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._copy = taken.clone()

    def read_copy(self) -> Tensor | None:
        """Returns the counts of the last `begin_copy`; None before the first."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._copy

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the counts over all ranks, and the copy that is not yet read.  Collective."""
        state = {"taken": collectives.all_reduce_sum(self._taken).cpu()}
        copy = self.read_copy()
        return state if copy is None else {**state, "report": copy.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores the counts: rank 0 takes all of them, the others begin at zero."""
        self._taken = collectives.only_on_main(state["taken"].to(self._device))
        self._copy, self._copied = state.get("report"), None
