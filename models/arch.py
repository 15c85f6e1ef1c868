"""The settings of one network: `arch.*` on the command line, and `arch` in a checkpoint."""

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

    name: Variant = Field("trm", description="which variant: how the network recurses")
    H_cycles: int = Field(3, ge=1, description="recursions that refine the answer z_H within one step")
    L_cycles: int = Field(6, ge=1, description="refinements of the reasoning z_L before each refinement of z_H")
    H_layers: int = Field(
        0, ge=0, description="number of blocks of the answer network; only hrm and transformers_baseline have one"
    )
    L_layers: int = Field(
        2, ge=0, description="number of blocks of the shared network (trm*) or of the reasoning network (hrm)"
    )
    hidden_size: int = Field(512, ge=2, description="width D of the hidden states")
    num_heads: int = Field(8, ge=1, description="number of attention heads")
    expansion: float = Field(4.0, gt=0, description="the inner width of the SwiGLU is about expansion * 2/3 * D")
    pos_encodings: Literal["rope", "rope2d", "learned", "none"] = Field(
        "rope", description="how the network knows positions; rope2d rotates by row and by column separately"
    )
    rope_theta: float = Field(10000.0, gt=0, description="base of the rotary frequencies")
    rms_norm_eps: float = Field(1e-5, gt=0, description="added to the mean square in every norm")
    mlp_t: bool = Field(False, description="replace attention by a SwiGLU over the sequence")
    puzzle_emb_ndim: int = Field(512, ge=0, description="width of a puzzle's embedding; 0 turns puzzle embeddings off")
    puzzle_emb_len: int = Field(16, ge=0, description="number of prefix tokens P; 0 computes ceil(puzzle_emb_ndim / D)")
    halt_max_steps: int = Field(16, ge=1, description="the largest number of steps on one example")
    halt_exploration_prob: float = Field(0.1, ge=0, le=1, description="fraction of slots that may not halt early")
    no_ACT_continue: bool = Field(
        True,
        description="true: halt when the halt logit is above 0; false: when it exceeds the continue logit",
    )
    loss_type: Literal["stablemax_cross_entropy", "softmax_cross_entropy"] = Field(
        "stablemax_cross_entropy", description="the loss of the tokens"
    )
    forward_dtype: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="the dtype of activations; weights are always float32"
    )

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
        """Returns P, the number of prefix tokens that carry the puzzle embedding."""
        fixed = self.puzzle_emb_len if self.name.startswith("trm") else 0
        return fixed or -(-self.puzzle_emb_ndim // self.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """Returns the dtype of activations and of the weights' working copies."""
        return getattr(torch, self.forward_dtype)

    @property
    def halts_against_continue(self) -> bool:
        """Returns whether a slot halts when halt > continue, rather than when halt > 0."""
        return self.name in ("hrm", "transformers_baseline") or not self.no_ACT_continue

    @property
    def has_continue_target(self) -> bool:
        """Returns whether the continue logit is trained.  This costs one more recursion per step."""
        return self.name == "hrm" or (self.name.startswith("trm") and not self.no_ACT_continue)
