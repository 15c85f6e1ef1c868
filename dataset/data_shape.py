"""What the network must know of its data sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dataset.canvas import Canvas, whole_canvas


@dataclass(frozen=True)
class DataShape:
    """What the network must know of its data sets.

    canvases: on which it computes, small ones first; by default the whole one.
    shares: of the training examples on each, where there are several.
    """

    vocab_size: int
    seq_len: int
    num_puzzle_identifiers: int
    ignore_label_id: int | None
    row_stride: int | None = None
    canvases: tuple[Canvas, ...] = ()
    shares: tuple[float, ...] | None = None

    @classmethod
    def of(
        cls,
        metadata: Any,
        num_puzzle_identifiers: int,
        canvases: tuple[Canvas, ...] = (),
        shares: tuple[float, ...] | None = None,
    ) -> DataShape:
        """Of a split's metadata and the number of identifiers over all data sets."""
        return cls(
            metadata.vocab_size,
            metadata.seq_len,
            num_puzzle_identifiers,
            metadata.ignore_label_id,
            metadata.row_stride,
            canvases,
            shares,
        )

    @property
    def whole(self) -> Canvas:
        return whole_canvas(self.seq_len)
