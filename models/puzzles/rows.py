"""Rows of numbers, of which a few are read and written at a time: how they are stored, copied and summarised."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BLOCK = 1 << 17
"""Rows that are copied at once: 0.27 GB at width 512."""

RowBlock = dict[str, Tensor]
"""Some rows of a table in host memory: `identifiers`, int64 [N], and per name the rows that they have [N, ..]."""


class Rows(Protocol):
    """Stores rows [num, *shape], all equal until they are written."""

    device: torch.device
    """Where rows are read to, and where the arithmetic on them is done."""

    def read(self, numbers: Tensor) -> Tensor:
        """Returns copies of the rows of these numbers [N], int64 on `device`, as [N, *shape]."""

    def write(self, numbers: Tensor, rows: Tensor) -> None:
        """Replaces the rows of these numbers [N].  Where numbers are equal, so are `rows` [N, *shape]."""

    def fill(self, row: Tensor) -> None:
        """Makes every row equal to `row` [*shape]."""

    def num_bytes(self) -> int:
        """Returns how much room the rows take where they lie."""


MakeRows = Callable[[int, tuple[int, ...], torch.dtype], Rows]
"""Returns so many rows of a shape and a dtype, all zero."""


class MemoryRows:
    """Rows in the memory of one device."""

    def __init__(self, num: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.tensor = torch.zeros(num, *shape, dtype=dtype, device=device)

    def read(self, numbers: Tensor) -> Tensor:
        return self.tensor[numbers]

    def write(self, numbers: Tensor, rows: Tensor) -> None:
        self.tensor[numbers] = rows

    def fill(self, row: Tensor) -> None:
        self.tensor.copy_(row.expand_as(self.tensor))

    def num_bytes(self) -> int:
        return self.tensor.nbytes


@dataclass(frozen=True)
class RowSummary:
    """The mean and the spread (standard deviation), each [E], of `count` trained rows.  New rows start there."""

    mean: Tensor
    spread: Tensor
    count: int

    @classmethod
    def from_rows(cls, rows: Tensor) -> RowSummary | None:
        """Summarises the trained rows of `rows` [num, E], which are those that are not zero; None if there are none."""
        trained = rows[(rows != 0).any(-1)]
        return cls(trained.mean(0), trained.std(0, correction=0), len(trained)) if len(trained) else None

    @classmethod
    def from_pieces(cls, pieces: Iterable[Tensor]) -> RowSummary | None:
        """Summarises the trained rows of several tensors [.., E], of which one at a time is in memory.

        The sums of squares are put together as in Chan, Golub and LeVeque (1979).
        """
        parts = [part for piece in pieces if (part := cls.from_rows(piece)) is not None]
        if len(parts) < 2:
            return parts[0] if parts else None
        counts = torch.tensor([part.count for part in parts], dtype=torch.float64).unsqueeze(1)
        means = torch.stack([part.mean for part in parts]).double()
        spreads = torch.stack([part.spread for part in parts]).double()
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (counts * (spreads.square() + (means - mean).square())).sum(0) / total
        return cls(mean.float(), variance.sqrt().float(), int(total))
