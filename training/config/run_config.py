"""The settings of a training run: the sections put together, and contradictions between settings."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator, model_validator

from training.config.optimization import OptimizerConfig, StepSettings
from training.config.puzzles import AugmentationSettings, PuzzleRowSettings
from training.config.sections import (
    AverageSettings,
    CheckpointSettings,
    DataSettings,
    EvaluatorSettings,
    FreezeSettings,
    HardwareSettings,
    LengthSettings,
    LogSettings,
    NetworkSettings,
    StartSettings,
)
from training.config.supervision import DisturbanceSettings, SupervisionSettings
from utils.errors import SettingError


class TrainConfig(
    # pydantic lists the fields of the last base first
    HardwareSettings,
    LogSettings,
    CheckpointSettings,
    AverageSettings,
    FreezeSettings,
    PuzzleRowSettings,
    DisturbanceSettings,
    SupervisionSettings,
    StepSettings,
    OptimizerConfig,
    LengthSettings,
    NetworkSettings,
):
    """The settings of the train state, its steps and the loop: all but those of data, start and evaluation."""

    @model_validator(mode="after")
    def _check_intervals_divide_epochs(self) -> TrainConfig:
        if self.epochs % self.epochs_per_interval:
            raise SettingError(
                f"epochs={self.epochs} is not a multiple of eval_interval={self.eval_interval}: change one of them"
            )
        return self

    @model_validator(mode="after")
    def _check_something_learns(self) -> TrainConfig:
        if self.ema_puzzle_rows and not self.ema:
            raise SettingError("ema_puzzle_rows=true needs ema=true: set both or none")
        if (more := self.ema_more_rates) and not self.ema:
            raise SettingError(f"ema_more_rates={more} needs ema=true: set both or none")
        if len({self.ema_rate, *more}) <= len(more) or not all(0 < rate < 1 for rate in more):
            raise SettingError(
                f"ema_more_rates={more} must be different numbers between 0 and 1, and none of them "
                f"ema_rate={self.ema_rate}: change one of them"
            )
        if self.freeze_weights and not self.arch.puzzle_emb_ndim:
            raise SettingError(
                "freeze_weights=true and arch.puzzle_emb_ndim=0 leave nothing to train: change one of them"
            )
        return self

    @model_validator(mode="after")
    def _check_schedule(self) -> TrainConfig:
        if self.lr_schedule == "constant" and self.lr_min_ratio != 1:
            raise SettingError(
                f"lr_schedule=constant and lr_min_ratio={self.lr_min_ratio:g} contradict: set lr_min_ratio=1, or "
                "lr_schedule=cosine"
            )
        if self.lr_schedule in ("linear", "warmup_stable_decay") and self.lr_min_ratio == 1:
            raise SettingError(
                f"lr_schedule={self.lr_schedule} never falls with lr_min_ratio=1: set lr_min_ratio=0, or "
                "lr_schedule=constant"
            )
        return self

    @model_validator(mode="after")
    def _check_supervision(self) -> TrainConfig:
        if self.sharpening_targets and self.arch.halt_max_steps == 1:
            raise SettingError(
                "sharpening_targets=true changes nothing with arch.halt_max_steps=1: raise that, such as to 6"
            )
        if self.depth_curriculum is None:
            return self
        if self.arch.name == "transformers_baseline":
            raise SettingError("arch.name=transformers_baseline does not recurse: set depth_curriculum=null")
        last, depth = self.depth_curriculum[-1][1:], (self.arch.H_cycles, self.arch.L_cycles)
        if last != depth:
            raise SettingError(
                f"depth_curriculum ends at {list(last)} and the network at arch.H_cycles={depth[0]} arch.L_cycles="
                f"{depth[1]}, with which it is evaluated: make them equal"
            )
        if self.arch.name == "trm_hier6" and max(L for _, _, L in self.depth_curriculum) > 6:
            raise SettingError("arch.name=trm_hier6 has six reasoning latents: depth_curriculum may have 6 L_cycles")
        return self

    @property
    def epochs_per_interval(self) -> int:
        return interval_length(self.epochs, self.eval_interval)

    @property
    def num_intervals(self) -> int:
        return self.epochs // self.epochs_per_interval


class RunConfig(EvaluatorSettings, StartSettings, TrainConfig, AugmentationSettings, DataSettings):
    """What pretraining and test-time fine-tuning have in common."""

    @field_validator("data_paths", mode="before")
    @classmethod
    def _check_data_paths(cls, value: Any) -> Any:
        if value in (None, "???"):
            raise SettingError(
                'data_paths is empty: name at least one data set folder, such as data_paths="[data/arc-agi-2]"'
            )
        return [value] if isinstance(value, str) else value

    @field_validator("canvases", mode="before")
    @classmethod
    def _check_canvas_sizes(cls, value: Any) -> Any:
        pairs = isinstance(value, list) and all(isinstance(size, list | tuple) and len(size) == 2 for size in value)
        if value not in (None, "fitted") and not (pairs and value):
            raise SettingError(f"write fitted, null or a list of sizes such as [[11,11],[30,30]], not {value}")
        return value

    @model_validator(mode="after")
    def _check_canvases_have_positions(self) -> RunConfig:
        if self.canvases is not None and self.arch.mlp_t:
            raise SettingError(
                f"canvases={self.canvases} and arch.mlp_t=true contradict: the weights of arch.mlp_t mix the positions "
                "of the whole canvas; set canvases=null or arch.mlp_t=false"
            )
        return self

    @model_validator(mode="after")
    def _check_fresh_augmentations_have_a_meaning(self) -> RunConfig:
        if self.fresh_augmentations and self.arch.puzzle_emb_ndim and not self.arch.is_composed:
            raise SettingError(
                "fresh_augmentations=true shows puzzles that no table has a row for: set "
                "arch.puzzle_embedding=composed, or fresh_augmentations=false"
            )
        return self

    @property
    def warnings(self) -> list[str]:
        """What is allowed and probably not meant, in sentences."""
        if self.fresh_augmentations and self.arch.augmentation_rank:
            return [
                f"with fresh_augmentations=true no visit trains the rows that arch.augmentation_rank="
                f"{self.arch.augmentation_rank} gives to puzzles: set it to 0, or fresh_augmentations=false"
            ]
        return []

    @property
    def load_averaged(self) -> bool:
        """Whether to load the averaged weights of `load_checkpoint`, if it has any."""
        return True

    @property
    def rows_from(self) -> str:
        """What the puzzle rows start from with `load_checkpoint`: keep, mean, noise or zero."""
        return self.puzzle_rows or "keep"

    @property
    def resumes(self) -> bool:
        """Whether the run continues from a checkpoint in its folder, if there is one."""
        return self.resume == "auto" and self.epochs > 0


def interval_length(epochs: int, eval_interval: int | None) -> int:
    """Returns how many epochs an interval has; a run that is shorter than an interval has one of its own length."""
    return min(eval_interval or epochs, epochs) or 1


class PretrainConfig(RunConfig):
    """`pretrain_no_eval.py`: no evaluation, a checkpoint at the end of every interval."""

    @field_validator("evaluators")
    @classmethod
    def _check_no_evaluators(cls, value: list[str]) -> list[str]:
        if value:
            raise SettingError(
                f"pretraining does not evaluate: set evaluators=[] (not {value}) and use eval_arc_k10.py"
            )
        return value

    @field_validator("ema_more_rates")
    @classmethod
    def _check_no_votes(cls, value: list[float]) -> list[float]:
        if value:
            raise SettingError(f"ema_more_rates={value} is about votes, and pretraining has none: set it to []")
        return value

    @model_validator(mode="after")
    def _check_trains(self) -> PretrainConfig:
        if self.epochs == 0:
            raise SettingError("epochs=0 leaves nothing to train: set epochs to a multiple of eval_interval")
        return self
