"""The puzzle embedding table: one row per puzzle, or per task if the embedding is composed.  Sign descent trains the
rows of the batch and no others.

The table is not a parameter of the network.  It has two verbs, `gather` and `apply_gradients`.  The update is the same
wherever the rows lie: a `Rows` object stores them, which itself has two verbs, `read` and `write`.  The one for memory
is in `models.puzzles.rows`, others are in `training.slots.tables`.

Dimensions: N rows of a batch, E width of a row, num rows of the table.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from models.puzzles.average import RowAverage
from models.puzzles.rows import BLOCK, MakeRows, MemoryRows, RowBlock, Rows


def sum_per_identifier(identifiers: Tensor, gradients: Tensor) -> Tensor:
    """Returns, for each of N rows, the sum of `gradients` [N, E] over all rows with the same identifier [N].

    It sorts the rows and adds up the runs.  Unlike `unique`, this has fixed shapes and fetches nothing from the device.
    """
    order = torch.argsort(identifiers, stable=True)
    ordered = identifiers[order]
    run = torch.zeros_like(ordered, dtype=torch.int64)
    run[1:] = (ordered[1:] != ordered[:-1]).to(torch.int64).cumsum(0)
    sums = torch.zeros_like(gradients).index_add_(0, run, gradients[order])
    result = torch.empty_like(gradients)
    result[order] = sums[run]
    return result


class PuzzleTable:
    """Trains rows [num, E] in float32.  They start at zero.

    Args:
        device: where the rows lie, unless `make_rows` says otherwise.
        ema_rate: the rate of an exponential moving average of the rows over all steps; None keeps no average.
        fixed: the identifier whose row stays zero; None if all are trained.
        make_rows: makes what stores them.

    Attributes:
        rows: what stores them.
        started_as: the row [E], in host memory, that every row is equal to until it is written.
    """

    def __init__(
        self,
        num: int,
        width: int,
        device: torch.device | str = "cpu",
        ema_rate: float | None = None,
        fixed: int | None = None,
        make_rows: MakeRows | None = None,
    ) -> None:
        self.num, self.width, self.fixed = num, width, fixed
        held = self.num_held()
        make = make_rows or (lambda number, shape, dtype: MemoryRows(number, shape, dtype, device))
        self.rows = make(held, (width,), torch.float32)
        self.average = None if ema_rate is None else RowAverage(self.rows, ema_rate, held, width, make)
        self.started_as = torch.zeros(width)
        # When each row was last written, in ticks; 0: never.  A tick ends when the rows written in it are copied.
        self._written = torch.zeros(held, dtype=torch.int32, device=self.rows.device)
        self._tick = 1

    @property
    def weights(self) -> Tensor:
        """The rows [num, E] themselves, where they are in memory."""
        assert isinstance(self.rows, MemoryRows), "these rows are not in memory"
        return self.rows.tensor

    def gather_averaged(self, identifiers: Tensor) -> Tensor:
        """Returns the averaged rows [N, E] of `identifiers` [N], or the rows themselves without an average."""
        numbers = self._numbers_of(identifiers)
        rows = self.rows.read(numbers)
        return _copy_to(identifiers.device, rows if self.average is None else self.average.gather(numbers, rows))

    def gather_raw(self, identifiers: Tensor) -> Tensor:
        """Returns copies of the rows [N, E] of `identifiers` [N]."""
        return _copy_to(identifiers.device, self.rows.read(self._numbers_of(identifiers)))

    def gather(self, identifiers: Tensor) -> Tensor:
        """Returns copies of the rows of `identifiers` [N], as a leaf [N, E] that collects a gradient."""
        return self.gather_raw(identifiers).requires_grad_()

    @torch.no_grad()
    def apply_gradients(
        self, identifiers: Tensor, gradients: Tensor, lr: float, weight_decay: float, is_finite: Tensor | None = None
    ) -> None:
        """Makes one step of sign descent (arXiv 1802.04434) on the rows of `identifiers` [N] with `gradients` [N, E].

        It adds the gradients of equal identifiers, then sets row = row * (1 - lr * weight_decay) - lr * sign(gradient).
        Where the rows are not on a GPU, it adds, and the signs then come to the rows.

        Args:
            is_finite: bool [], on the device of the gradients.  If it is false, nothing changes.
        """
        device = self.rows.device
        sign = sum_per_identifier(identifiers.to(torch.int64), gradients).sign()
        if self.fixed is not None:
            sign = sign * (identifiers != self.fixed).unsqueeze(1)
        numbers, sign = self._numbers_of(identifiers), sign.to(device)
        old = self.rows.read(numbers)
        rows = old * (1 - lr * weight_decay) - lr * sign
        if is_finite is not None:
            is_finite = is_finite.to(device)
            rows = torch.where(is_finite, rows, old)
        # Equal identifiers write equal rows, so their order does not matter.
        if self.average is not None:
            self.average.update(numbers, old, rows, is_finite)
        self.rows.write(numbers, rows)
        self._written[numbers] = self._tick

    def fill(self, row: Tensor) -> None:
        """Starts all rows, and their averages, as `row` [E]; none of them counts as written."""
        self.started_as = row.detach().to("cpu", copy=True)
        self.rows.fill(row.to(self.rows.device))
        self._written.zero_()
        if self.average is not None:
            self.average.fill(row.to(self.rows.device))

    def put(self, block: RowBlock) -> None:
        """Writes rows that `blocks` has yielded, or other rows.  A block without averages starts them from its rows."""
        if self.average is not None and "average" not in block:
            seen = self.average.step.cpu().expand(len(block["identifiers"]))
            block = block | {"average": block["weights"], "average_seen": seen}
        block = self._held_part(block)
        numbers = self._numbers_of(block["identifiers"])
        for name, rows in self._stored().items():
            rows.write(numbers, block[name].to(rows.device))
        self._written[numbers] = self._tick

    def end_tick(self) -> int:
        """Returns the current tick, and begins the next one: what is written from now on is written after it."""
        self._tick += 1
        return self._tick - 1

    def count_written(self, after: int = 0) -> int:
        """Returns how many rows were written after a tick; after 0 are all that were ever written."""
        written = self._written[: self.num_own()]
        return int(torch.count_nonzero(written > after if after else written))

    def blocks(self, after: int = 0, size: int = BLOCK) -> Iterator[RowBlock]:
        """Yields copies of the rows that were written after a tick, by identifier; at least one block."""
        numbers = torch.nonzero(self._written[: self.num_own()] > after).squeeze(1)
        for piece in numbers.split(size):
            stored = {name: rows.read(piece).cpu() for name, rows in self._stored().items()}
            yield {"identifiers": self._identifiers_of(piece).cpu(), **stored}

    def state_dict(self) -> dict[str, Tensor]:
        """Returns all rows [num, E] and their averages; those in memory themselves, not copies."""
        everything = torch.arange(self.num_own(), device=self.rows.device)
        stored = {
            name: rows.tensor if isinstance(rows, MemoryRows) else rows.read(everything)
            for name, rows in self._stored().items()
        }
        return stored | self.counters()

    def shape(self) -> Tensor:
        """Returns how many rows the table has, and how wide they are, int64 [2]."""
        return torch.tensor([self.num, self.width])

    def counters(self) -> dict[str, Tensor]:
        """Returns what there is once per table, not per row."""
        return {} if self.average is None else {"average_step": self.average.step}

    def load_counters(self, state: dict[str, Tensor]) -> None:
        """Sets what `counters` returned.

        Raises:
            ValueError: if it is missing.
        """
        for name, value in self.counters().items():
            if name not in state:
                raise ValueError(f"the checkpoint has no {name} of the puzzle rows: set ema_puzzle_rows=false")
            value.copy_(state[name])

    def check_shape(self, num: int, width: int) -> None:
        """Checks that a table of `num` rows of `width` can take the place of this one.

        Raises:
            ValueError: if it cannot.
        """
        if (num, width) != (self.num, self.width):
            raise ValueError(
                f"the checkpoint's puzzle table has shape {(num, width)}, this data set needs "
                f"{(self.num, self.width)}: resume with the data set it was trained on, or reset the rows"
            )

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Sets the rows, and their average if there is one, to what `state_dict` returned.

        Raises:
            ValueError: if the rows have another shape, or an average is needed and `state` has none.
        """
        self.check_shape(*state["weights"].shape)
        self.load_counters(state)
        if missing := self._stored().keys() - state.keys():
            raise ValueError(f"the checkpoint has no {min(missing)} of the puzzle rows: set ema_puzzle_rows=false")
        self.put({"identifiers": torch.arange(self.num), **{name: state[name] for name in self._stored()}})

    def num_bytes(self) -> int:
        """Returns how much room the rows and their averages take where they lie."""
        return sum(rows.num_bytes() for rows in self._stored().values())

    def _stored(self) -> dict[str, Rows]:
        """What is stored per row, by name."""
        stored: dict[str, Rows] = {"weights": self.rows}
        if self.average is not None:
            stored |= {"average": self.average.shadow, "average_seen": self.average.seen}
        return stored

    # What a table with only some of the rows does otherwise:

    def num_own(self) -> int:
        """Returns how many rows of the table are stored here."""
        return self.num

    def num_held(self) -> int:
        """Returns how many rows are stored here, with those that only make room."""
        return self.num

    def _numbers_of(self, identifiers: Tensor) -> Tensor:
        """Returns which of the stored rows are those of `identifiers` [N], int64 on their device."""
        return identifiers.to(self.rows.device, torch.int64)

    def _identifiers_of(self, numbers: Tensor) -> Tensor:
        return numbers

    def _held_part(self, block: RowBlock) -> RowBlock:
        """Returns those rows of a block that are stored here."""
        return block


def _copy_to(device: torch.device, rows: Tensor) -> Tensor:
    """Returns rows on a device; what goes to a GPU goes from pinned memory, and nothing waits for it."""
    return rows if rows.device == device else rows.pin_memory().to(device, non_blocking=True)
