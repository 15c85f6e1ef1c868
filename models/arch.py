"""The settings of one network: `arch.*` on the command line, and `arch` in a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import torch

Variant = Literal["trm", "trm_singlez", "trm_hier6", "urm", "hrm", "transformers_baseline"]

COMPOSED_PLACES = 11
"""Prefix tokens that `arch.composition=prefix` needs: the task, the dihedral transform and the colours 1 to 9."""

Effect = Literal["shape", "meaning", "none"]


def _setting(default: Any, effect: Effect, description: str, *, condition: bool = False, **bounds: Any) -> Any:
    """Declares a setting and how it relates to trained weights.

    Args:
        effect: shape: it decides the shapes of weights, so that weights of another value do not fit.  meaning: the
            shapes do not show it, but the same weights compute something else under another value.  none: the same
            weights can be used with any value.
        condition: a score depends on it; it is written beside the score.
        bounds: those of pydantic's `Field`, such as `ge=1`.
    """
    return Field(
        default, description=description, json_schema_extra={"effect": effect, "condition": condition}, **bounds
    )


class ArchConfig(BaseModel):
    """Architecture, recursion and halting of one network (arXiv 2510.04871, sections 4.1 to 4.6).

    The defaults are the published ARC-AGI settings.  `hrm` and `transformers_baseline` are the two reference
    models that the paper compares with; they derive their prefix length from `puzzle_emb_ndim` alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Variant = _setting("trm", "meaning", "which variant: how the network recurses")
    H_cycles: int = _setting(
        3, "meaning", "recursions that refine the answer z_H within one step", ge=1, condition=True
    )
    L_cycles: int = _setting(
        6, "meaning", "refinements of the reasoning z_L before each refinement of z_H", ge=1, condition=True
    )
    H_layers: int = _setting(
        0, "shape", "number of blocks of the answer network; only hrm and transformers_baseline have one", ge=0
    )
    L_layers: int = _setting(
        2, "shape", "number of blocks of the shared network (trm*, urm) or of the reasoning network (hrm)", ge=0
    )
    hidden_size: int = _setting(512, "shape", "width D of the hidden states", ge=2)
    num_heads: int = _setting(8, "meaning", "number of attention heads", ge=1)
    expansion: float = _setting(4.0, "shape", "the inner width of the SwiGLU is about expansion * 2/3 * D", gt=0)
    pos_encodings: Literal["rope", "rope2d", "learned", "none"] = _setting(
        "rope", "meaning", "how the network knows positions; rope2d rotates by row and by column separately"
    )
    rope_theta: float = _setting(10000.0, "meaning", "base of the rotary frequencies", gt=0)
    rms_norm_eps: float = _setting(1e-5, "meaning", "added to the mean square in every norm", gt=0)
    mlp_t: bool = _setting(False, "shape", "replace attention by a SwiGLU over the sequence")
    mlp_conv: Literal["none", "raster2", "raster3", "canvas3x3"] = _setting(
        "none",
        "shape",
        "a depthwise convolution in the SwiGLU: over each place and the one before it (raster2), also the one after it "
        "(raster3), or over a cell and its eight neighbours on the canvas (canvas3x3)",
    )
    mlp_conv_init: Literal["uniform", "identity"] = _setting(
        "uniform", "none", "how this convolution starts: drawn as PyTorch draws one, or changing nothing"
    )
    puzzle_emb_ndim: int = _setting(512, "shape", "width of a puzzle's embedding; 0 turns puzzle embeddings off", ge=0)
    puzzle_emb_len: int = _setting(
        16,
        "meaning",
        "number of prefix tokens P; 0 computes ceil(puzzle_emb_ndim / D), or 11 for arch.composition=prefix",
        ge=0,
    )
    puzzle_embedding: Literal["table", "composed"] = _setting(
        "table",
        "shape",
        "table: each puzzle has a row of its own, as published. composed: each task has one, and the network learns "
        "what augmentations mean",
    )
    composition: Literal["prefix", "scale_shift"] = _setting(
        "prefix",
        "shape",
        "how task and augmentation are composed. prefix: in tokens of their own, eleven in all. scale_shift: the "
        "augmentation scales and shifts the task's row",
    )
    augmentation_rank: int = _setting(
        0,
        "shape",
        "width of a further row per puzzle, which is projected and added to the task's in a composed embedding; 0: "
        "nothing is stored per augmentation",
        ge=0,
    )
    damping: float = _setting(
        0.0,
        "meaning",
        "part of a latent that stays at each update: z = damping * z + (1 - damping) * f(z, ..); 0 as published",
        ge=0,
        lt=1,
    )
    step_embedding: int = _setting(
        0,
        "shape",
        "tell the network which ACT step it makes, by a learnt vector for each of so many steps, added to its input; "
        "later steps count as the last of them. 0: it is not told, as published",
        ge=0,
    )
    halt_max_steps: int = _setting(16, "none", "the largest number of steps on one example", ge=1, condition=True)
    halt_exploration_prob: float = _setting(0.1, "none", "fraction of slots that may not halt early", ge=0, le=1)
    no_ACT_continue: bool = _setting(
        True, "none", "true: halt when the halt logit is above 0; false: when it exceeds the continue logit"
    )
    loss_type: Literal["stablemax_cross_entropy", "softmax_cross_entropy"] = _setting(
        "stablemax_cross_entropy", "none", "the loss of the tokens"
    )
    forward_dtype: Literal["bfloat16", "float32", "auto"] = _setting(
        "bfloat16",
        "none",
        "the dtype of activations; weights are always float32. auto: bfloat16 where the device computes in it, else "
        "float32",
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
        if self.is_reference and self.H_layers < 1:
            raise ValueError(f"arch.name={self.name} needs arch.H_layers >= 1, not {self.H_layers}")
        if self.name != "transformers_baseline" and self.L_layers < 1:
            raise ValueError(f"arch.name={self.name} needs arch.L_layers >= 1, not {self.L_layers}")
        if self.name == "trm_hier6" and self.damping:
            raise ValueError(
                f"arch.damping={self.damping:g} and arch.name=trm_hier6 contradict: its updates of z_L start from the "
                "sum of all six; set arch.damping=0"
            )
        self._check_composition()
        if self.puzzle_emb_ndim > self.prefix_len * self.hidden_size:
            raise ValueError(
                f"arch.puzzle_emb_ndim={self.puzzle_emb_ndim} does not fit {self.prefix_len} prefix tokens of width "
                f"{self.hidden_size}: raise arch.puzzle_emb_len or set it to 0"
            )
        return self

    def _check_composition(self) -> None:
        if not self.is_composed:
            if self.augmentation_rank:
                raise ValueError(
                    f"arch.augmentation_rank={self.augmentation_rank} is about composed embeddings: set it to 0 or set "
                    "arch.puzzle_embedding=composed"
                )
            return
        if self.composition == "scale_shift" and self.puzzle_emb_ndim < 10:
            raise ValueError(
                f"arch.composition=scale_shift needs arch.puzzle_emb_ndim >= 10, not {self.puzzle_emb_ndim}: nine "
                "colours and a base share the row"
            )
        if self.composition == "prefix" and not 1 <= self.puzzle_emb_ndim <= self.hidden_size:
            raise ValueError(
                "arch.composition=prefix has one token for a task's row, so arch.puzzle_emb_ndim="
                f"{self.puzzle_emb_ndim} must be 1 to {self.hidden_size} (arch.hidden_size)"
            )
        if self.composition == "prefix" and self.prefix_len < COMPOSED_PLACES:
            raise ValueError(
                f"arch.composition=prefix needs {COMPOSED_PLACES} prefix tokens, not arch.puzzle_emb_len="
                f"{self.puzzle_emb_len}: raise it or set it to 0"
            )

    @classmethod
    def unseen_in_weights(cls) -> list[str]:
        """Returns the settings that change what weights compute although the shapes of the weights do not show it."""
        return [name for name, roles in _declared(cls).items() if roles["effect"] == "meaning"]

    @property
    def conditions(self) -> dict[str, Any]:
        """The settings that a score depends on, with their values."""
        return {name: getattr(self, name) for name, roles in _declared(type(self)).items() if roles["condition"]}

    @property
    def is_composed(self) -> bool:
        """Returns whether a puzzle's embedding is composed of its task and its augmentation."""
        return self.puzzle_embedding == "composed"

    @property
    def is_reference(self) -> bool:
        """Returns whether this is one of the two models that the paper compares with."""
        return self.name in ("hrm", "transformers_baseline")

    @property
    def prefix_len(self) -> int:
        """Returns P, the number of prefix tokens that carry the puzzle embedding."""
        fixed = 0 if self.is_reference else self.puzzle_emb_len
        if self.is_composed and self.composition == "prefix":
            return fixed or COMPOSED_PLACES
        return fixed or -(-self.puzzle_emb_ndim // self.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """Returns the dtype of activations and of the weights' working copies."""
        assert self.forward_dtype != "auto", "the caller chooses for its device"
        import torch  # here, so that settings can be read and explained without it

        return getattr(torch, self.forward_dtype)

    @property
    def halts_against_continue(self) -> bool:
        """Returns whether a slot halts when halt > continue, rather than when halt > 0."""
        return self.is_reference or not self.no_ACT_continue

    @property
    def has_continue_target(self) -> bool:
        """Returns whether the continue logit is trained.  This costs one more recursion per step."""
        return self.name == "hrm" or not (self.is_reference or self.no_ACT_continue)


def _declared(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """What `_setting` has declared of each setting besides its default."""
    declared: dict[str, dict[str, Any]] = {}
    for name, field in model.model_fields.items():
        assert isinstance(field.json_schema_extra, dict), f"arch.{name}: declare it by _setting(..)"
        declared[name] = dict(field.json_schema_extra)
    return declared
