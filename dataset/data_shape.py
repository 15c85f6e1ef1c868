"""`DataShape`: what the network must know of its data sets."""

from __future__ import annotations

from dataclasses import dataclass

from dataset.canvas import Canvas, whole_canvas
from dataset.storage import SplitMetadata


@dataclass(frozen=True)
class DataShape:
    """What the network must know of its data sets.

    canvases: the canvases on which it computes, small ones first; empty means the whole one.
    fractions: how much of the training examples each canvas has; None for one canvas.
    num_task_rows: of a table with a row per task, that of no task included; None if nobody asks for one.
    """

    vocab_size: int
    seq_len: int
    num_puzzle_identifiers: int
    ignore_label_id: int | None
    row_stride: int | None = None
    canvases: tuple[Canvas, ...] = ()
    fractions: tuple[float, ...] | None = None
    num_task_rows: int | None = None

    @classmethod
    def from_metadata(
        cls,
        metadata: SplitMetadata,
        num_puzzle_identifiers: int,
        canvases: tuple[Canvas, ...] = (),
        fractions: tuple[float, ...] | None = None,
        num_task_rows: int | None = None,
    ) -> DataShape:
        """Makes the shape from a split's metadata and the number of identifiers over all data sets."""
        return cls(
            metadata.vocab_size,
            metadata.seq_len,
            num_puzzle_identifiers,
            metadata.ignore_label_id,
            metadata.row_stride,
            canvases,
            fractions,
            num_task_rows,
        )

    @property
    def whole(self) -> Canvas:
        return whole_canvas(self.seq_len)
