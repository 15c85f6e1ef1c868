"""The settings of one network: what `arch.*` means on the command line and what a checkpoint carries."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

Variant = Literal["trm", "trm_singlez", "trm_hier6", "hrm", "transformers_baseline"]


class ArchConfig(BaseModel):
    """Architecture, recursion and halting of one network (arXiv 2510.04871, sections 4.1 to 4.6).

    The defaults are the published ARC-AGI settings.  `hrm` and `transformers_baseline` are the two reference
    models that the paper compares with; they derive their prefix length from `puzzle_emb_ndim` alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Variant = Field("trm", description="the recursion")
    H_cycles: int = Field(3, ge=1, description="recursions that refine the answer z_H within one step")
    L_cycles: int = Field(6, ge=1, description="refinements of the reasoning z_L before each refinement of z_H")
    H_layers: int = Field(0, ge=0, description="blocks of the separate answer network (hrm, transformers_baseline)")
    L_layers: int = Field(2, ge=0, description="blocks of the shared network (trm*) or of the reasoning network (hrm)")
    hidden_size: int = Field(512, ge=2, description="width D")
    num_heads: int = Field(8, ge=1, description="attention heads")
    expansion: float = Field(4.0, gt=0, description="inner width of the SwiGLU is about expansion * 2/3 * D")
    pos_encodings: Literal["rope", "rope2d", "learned", "none"] = Field(
        "rope", description="how places are told apart; rope2d turns by row and column apart"
    )
    rope_theta: float = Field(10000.0, gt=0, description="base of the rotary frequencies")
    rms_norm_eps: float = Field(1e-5, gt=0, description="added to the mean square in every norm")
    mlp_t: bool = Field(False, description="mix positions by a SwiGLU over the sequence instead of by attention")
    puzzle_emb_ndim: int = Field(512, ge=0, description="width of a puzzle's row in the table; 0 for no table")
    puzzle_emb_len: int = Field(16, ge=0, description="prefix tokens P; 0 for ceil(puzzle_emb_ndim / D)")
    halt_max_steps: int = Field(16, ge=1, description="most steps a slot spends on one example")
    halt_exploration_prob: float = Field(0.1, ge=0, le=1, description="share of slots that may not halt early")
    no_ACT_continue: bool = Field(True, description="halt on halt > 0; false: on halt > continue, with a target")
    loss_type: Literal["stablemax_cross_entropy", "softmax_cross_entropy"] = Field(
        "stablemax_cross_entropy", description="of the tokens"
    )
    forward_dtype: Literal["bfloat16", "float32"] = Field("bfloat16", description="of activations; weights are float32")

    @model_validator(mode="after")
    def _consistent(self) -> ArchConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"arch.hidden_size={self.hidden_size} is not a multiple of arch.num_heads={self.num_heads}"
            )
        if self.pos_encodings == "rope" and not self.mlp_t and (self.hidden_size // self.num_heads) % 2:
            raise ValueError(
                f"rotary positions need an even head width, not {self.hidden_size // self.num_heads}: "
                "change arch.num_heads or set arch.pos_encodings=learned"
            )
        if self.pos_encodings == "rope2d" and not self.mlp_t and (self.hidden_size // self.num_heads) % 4:
            raise ValueError(
                f"arch.pos_encodings=rope2d needs a head width that is a multiple of 4, not "
                f"{self.hidden_size // self.num_heads}: change arch.num_heads or set arch.pos_encodings=rope"
            )
        if self.name == "trm_hier6" and self.L_cycles > 6:
            raise ValueError(
                f"arch.name=trm_hier6 has six reasoning latents, so arch.L_cycles={self.L_cycles} must be at most 6"
            )
        if self.name in ("hrm", "transformers_baseline") and self.H_layers < 1:
            raise ValueError(f"arch.name={self.name} needs arch.H_layers >= 1, not {self.H_layers}")
        if self.name != "transformers_baseline" and self.L_layers < 1:
            raise ValueError(f"arch.name={self.name} needs arch.L_layers >= 1, not {self.L_layers}")
        if self.puzzle_emb_ndim > self.prefix_len * self.hidden_size:
            raise ValueError(
                f"arch.puzzle_emb_ndim={self.puzzle_emb_ndim} does not fit {self.prefix_len} prefix tokens of width "
                f"{self.hidden_size}: raise arch.puzzle_emb_len or set it to 0"
            )
        return self

    @property
    def prefix_len(self) -> int:
        """P, the number of prefix tokens that hold the puzzle's row."""
        fixed = self.puzzle_emb_len if self.name.startswith("trm") else 0
        return fixed or -(-self.puzzle_emb_ndim // self.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of activations and of the weights' working copies."""
        return getattr(torch, self.forward_dtype)

    @property
    def halts_against_continue(self) -> bool:
        """Whether a slot halts on halt > continue (else on halt > 0)."""
        return self.name in ("hrm", "transformers_baseline") or not self.no_ACT_continue

    @property
    def has_continue_target(self) -> bool:
        """Whether the continue logit is trained, at the price of one more recursion per step."""
        return self.name == "hrm" or (self.name.startswith("trm") and not self.no_ACT_continue)
