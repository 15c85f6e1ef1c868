"""Averages the rows of a table over the steps."""

from __future__ import annotations

import torch
from torch import Tensor

from models.puzzles.rows import MakeRows, Rows


class RowAverage:
    """Averages every row over all steps, but computes only on the rows of the batch.

    A row that is not in the batch does not change, so its average moves towards it by a known factor per step.  When
    the row is next used, the factors of all missed steps are applied at once.  The result equals averaging the whole
    table after every step.

    Args:
        rows: the table's rows, which the table changes.
        rate: at each step, average = rate * average + (1 - rate) * row.
    """

    def __init__(self, rows: Rows, rate: float, num: int, width: int, make_rows: MakeRows) -> None:
        self.rate = rate
        self.shadow = make_rows(num, (width,), torch.float32)
        self.seen = make_rows(num, (), torch.int64)
        self.step = torch.zeros((), dtype=torch.int64, device=rows.device)

    def gather(self, numbers: Tensor, held: Tensor) -> Tensor:
        """Returns the averages [N, E] of the rows of these numbers [N], which are `held` [N, E], at this step."""
        return averaged_rows(held, self.shadow.read(numbers), self.seen.read(numbers), self.step, self.rate)

    def update(self, numbers: Tensor, old: Tensor, new: Tensor, is_finite: Tensor | None) -> None:
        """Counts one step in which the rows of these numbers [N] become `new` [N, E]; they were `old`.

        If `is_finite` is false, it counts nothing.
        """
        before = self.gather(numbers, old)
        made = torch.ones_like(self.step) if is_finite is None else is_finite.to(torch.int64)
        after = torch.lerp(before, new, (1 - self.rate))
        self.step += made
        self.shadow.write(numbers, torch.where(made > 0, after, before))
        self.seen.write(numbers, self.step.expand(len(numbers)))

    def fill(self, row: Tensor) -> None:
        """Starts the averages of all rows as `row`, at this step."""
        self.shadow.fill(row)
        self.seen.fill(self.step)


def averaged_rows(rows: Tensor, shadow: Tensor, seen: Tensor, step: Tensor, rate: float) -> Tensor:
    """Returns the averages [N, E] at a step of `rows`, whose averages were `shadow` [N, E] at steps `seen` [N]."""
    left = (rate ** (step - seen).to(torch.float64)).to(rows.dtype).unsqueeze(1)
    return rows + (shadow - rows) * left
