"""What it takes to build a network and to speak to it: architecture, tokens, canvas."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dataset import encoding
from dataset.canvas import whole_canvas
from models.arch import ArchConfig

FORMAT_VERSION = 1


class Tokens(BaseModel):
    """The token ids that inputs and answers consist of."""

    model_config = ConfigDict(extra="forbid")

    vocab_size: int = Field(ge=1)
    pad_id: int = Field(description="where the canvas is empty")
    ignore_label_id: int | None = Field(description="a label that nothing is learnt from")
    end_of_grid_id: int | None = Field(None, description="ARC: the row below and the column right of a grid")
    colour_0_id: int | None = Field(None, description="ARC: colour c is colour_0_id + c")


class CanvasLayout(BaseModel):
    """The canvas that the network looks at, and where its cells are in the sequence."""

    model_config = ConfigDict(extra="forbid")

    seq_len: int = Field(ge=1, description="cells, row by row")
    side: int | None = Field(description="of a square canvas")
    row_stride: int = Field(ge=1, description="cell (row, column) has the position row_stride * row + column")
    prefix_len: int = Field(ge=0, description="positions before the first cell, which the puzzle's row fills")
    positions: str = Field(description="how positions are told apart (arch.pos_encodings)")


class NetworkConfig(BaseModel):
    """The content of `config.json` in an exported folder."""

    model_config = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    model_type: Literal["tiny-recursive-model"] = "tiny-recursive-model"
    arch: ArchConfig
    tokens: Tokens
    canvas: CanvasLayout

    @model_validator(mode="after")
    def _check_version(self) -> NetworkConfig:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(f"format version {self.format_version} is not {FORMAT_VERSION}")
        return self

    @classmethod
    def from_metadata(cls, arch: ArchConfig, metadata: Any) -> NetworkConfig:
        """Returns the configuration of a network, given the metadata of a split that it was trained on."""
        is_arc = metadata.vocab_size == encoding.VOCAB_SIZE
        side = math.isqrt(metadata.seq_len)
        return cls(
            arch=arch,
            tokens=Tokens(
                vocab_size=metadata.vocab_size,
                pad_id=metadata.pad_id,
                ignore_label_id=metadata.ignore_label_id,
                end_of_grid_id=encoding.EOS if is_arc else None,
                colour_0_id=encoding.COLOUR_0 if is_arc else None,
            ),
            canvas=CanvasLayout(
                seq_len=metadata.seq_len,
                side=side if side * side == metadata.seq_len else None,
                row_stride=metadata.row_stride or whole_canvas(metadata.seq_len).width,
                prefix_len=arch.prefix_len,
                positions=arch.pos_encodings,
            ),
        )
