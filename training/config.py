"""The settings of a run: composed by Hydra, checked here once and strictly, typed from then on."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.arch import ArchConfig
from training.optim.optimizers import OptimizerConfig
from training.prepare.compile import not_compiled_because
from utils.trackers import TrackerConfig


class RunConfig(BaseModel):
    """What pretraining and test-time fine-tuning have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arch: ArchConfig
    data_paths: list[str] = Field(min_length=1, description="data set folders; their train splits are trained on")
    global_batch_size: int = Field(768, ge=1, description="examples per optimizer step over all ranks")
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="so many of these are computed at once over all ranks, to need less memory, and their gradients "
        "added up; with several canvases so many of the largest (null: all, or an eighth)",
    )
    canvases: Literal["fitted"] | list[tuple[int, int]] | None = Field(
        None,
        description="sizes [[height,width],..] on which examples are computed, each on the smallest that holds it; "
        "fitted: chosen from the data; null: the whole canvas, as published",
    )
    epochs: int = Field(100_000, ge=0, description="visits to every task")
    eval_interval: int | None = Field(None, ge=1, description="epochs per interval; a checkpoint ends each (null: one)")
    lr: float = Field(1e-4, gt=0, description="the network's rate")
    lr_min_ratio: float = Field(1.0, ge=0, le=1, description="the cosine ends at lr * lr_min_ratio; 1 is constant")
    lr_warmup_steps: int = Field(2000, ge=0, description="steps over which the rates rise from 0")
    weight_decay: float = Field(0.1, ge=0, description="of the network: weight *= 1 - lr * weight_decay")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamAtan2's first moment")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamAtan2's second moment")
    atan2_scale: float = Field(1.27, gt=0, description="1.27 for adam-atan2-pytorch's steps, 1 for adam-atan2's")
    puzzle_emb_lr: float = Field(1e-2, ge=0, description="the puzzle rows' rate")
    puzzle_emb_weight_decay: float = Field(0.1, ge=0, description="of the rows that are in the batch")
    freeze_trunk: float = Field(
        0.0, ge=0, le=1, description="for this first share of the steps only the puzzle rows learn"
    )
    freeze_weights: bool = Field(False, description="train the puzzle rows alone")
    ema: bool = Field(False, description="average the weights; checkpoints and evaluation then use the average")
    ema_puzzle_rows: bool = Field(False, description="with ema: average the puzzle rows too, at the same rate")
    ema_rate: float = Field(
        0.999, gt=0, lt=1, description="average = rate * average + (1 - rate) * weight at each step"
    )
    seed: int = Field(0, ge=0, description="of weights, batches and exploration")
    evaluators: list[str] = Field(default_factory=list, description="none in pretraining")
    project_name: str | None = Field(None, description="a folder between checkpoints/ and the run's; null: trm")
    run_name: str | None = Field(None, description="null: drawn at random, such as brisk-otter")
    checkpoint_path: str | None = Field(None, description="the run's folder; null: checkpoints/PROJECT/RUN")
    load_checkpoint: str | None = Field(None, description="start from the weights of this checkpoint")
    puzzle_rows: Literal["keep", "mean", "noise", "zero"] | None = Field(
        None,
        description="what the puzzle rows start from with load_checkpoint: the checkpoint's own (only for the same "
        "puzzles), the mean of its trained rows, that and noise of their spread, zero; null: mean when fine-tuning, "
        "else keep",
    )
    verify_data: bool = Field(True, description="compare every file of the data sets with its checksum at the start")
    resume: Literal["auto", "never"] = Field("auto", description="auto: go on where the run's folder left off")
    checkpoint_steps: int | None = Field(
        None, ge=1, description="a checkpoint every so many steps besides the interval's"
    )
    checkpoint_minutes: float | None = Field(30.0, gt=0, description="and every so many minutes; null: never")
    keep_last: int = Field(2, ge=1, description="how many of those to keep; those that end an interval all stay")
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="what to do at a gradient that is not finite, before anything is updated"
    )
    log_every: int = Field(50, ge=1, description="steps between two lines of metrics.jsonl")
    tracker: TrackerConfig | None = Field(None, description="where metrics go besides metrics.jsonl")
    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="auto: a GPU where there is one")
    compile: bool | None = Field(None, description="torch.compile; null: wherever a compiler is found")
    activation_checkpointing: bool = Field(
        False, description="keep less memory for the backward pass and compute it again: for small GPUs"
    )
    dry_run: bool = Field(False, description="everything up to the first step, then a plan; nothing is written")

    @field_validator("data_paths", mode="before")
    @classmethod
    def _no_missing(cls, value: Any) -> Any:
        if value in (None, "???"):
            raise ValueError('name at least one data set folder, such as data_paths="[data/arc-agi-2]"')
        return [value] if isinstance(value, str) else value

    @field_validator("canvases", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        pairs = isinstance(value, list) and all(isinstance(size, list | tuple) and len(size) == 2 for size in value)
        if value not in (None, "fitted") and not (pairs and value):
            raise ValueError(f"write fitted, null or a list of sizes such as [[11,11],[30,30]], not {value}")
        return value

    @model_validator(mode="after")
    def _canvases_need_places(self) -> RunConfig:
        if self.canvases is not None and self.arch.mlp_t:
            raise ValueError(
                f"canvases={self.canvases} and arch.mlp_t=true do not fit: its weights mix all places of the whole "
                "canvas; set canvases=null or arch.mlp_t=false"
            )
        return self

    @model_validator(mode="after")
    def _intervals_divide_epochs(self) -> RunConfig:
        if self.epochs % self.epochs_per_interval:
            raise ValueError(
                f"epochs={self.epochs} is not a multiple of eval_interval={self.eval_interval}: change one of them"
            )
        return self

    @model_validator(mode="after")
    def _something_learns(self) -> RunConfig:
        if self.ema_puzzle_rows and not self.ema:
            raise ValueError("ema_puzzle_rows=true needs ema=true: set both or none")
        if self.freeze_weights and not self.arch.puzzle_emb_ndim:
            raise ValueError(
                "freeze_weights=true and arch.puzzle_emb_ndim=0 leave nothing to train: change one of them"
            )
        return self

    @property
    def epochs_per_interval(self) -> int:
        return min(self.eval_interval or self.epochs, self.epochs) or 1

    @property
    def num_intervals(self) -> int:
        return self.epochs // self.epochs_per_interval

    @property
    def load_averaged(self) -> bool:
        """Whether `load_checkpoint` takes averaged weights where there are any."""
        return True

    @property
    def rows_from(self) -> str:
        return self.puzzle_rows or "keep"

    @property
    def resumes(self) -> bool:
        """Whether the run's folder is looked into for a checkpoint to go on from."""
        return self.resume == "auto" and self.epochs > 0

    @property
    def optimizer(self) -> OptimizerConfig:
        return OptimizerConfig(**{key: getattr(self, key) for key in OptimizerConfig.model_fields})

    def should_compile(self, device: torch.device) -> bool:
        """Whether to compile the step: as told, or where what the compiler needs is installed."""
        return self.compile if self.compile is not None else not self.not_compiled_because(device)

    def not_compiled_because(self, device: torch.device) -> str:
        """What is missing for compilation that was not decided by hand; empty if nothing is."""
        return "" if self.compile is not None else not_compiled_because(device)


class PretrainConfig(RunConfig):
    """`pretrain_no_eval.py`: no evaluation, a checkpoint at the end of every interval."""

    @field_validator("evaluators")
    @classmethod
    def _none(cls, value: list[str]) -> list[str]:
        if value:
            raise ValueError(f"pretraining does not evaluate: set evaluators=[] (not {value}) and use eval_arc_k10.py")
        return value

    @model_validator(mode="after")
    def _trains(self) -> PretrainConfig:
        if self.epochs == 0:
            raise ValueError("epochs=0 leaves nothing to train: set epochs to a multiple of eval_interval")
        return self


class EvalConfig(RunConfig):
    """`eval_arc_k10.py`: test-time fine-tuning, then prediction, votes, scores and submissions."""

    evaluators: list[str] = Field(
        default_factory=lambda: ["arc"], description="arc (votes, submissions, pass@k) or exact (one answer), or none"
    )
    finetune_on: Literal["train_split", "test_tasks"] = Field(
        "train_split", description="all tasks of the train split, or only those that are also in the test split"
    )
    eval_batch_size: int | None = Field(None, ge=1, description="examples per prediction step; null: global_batch_size")
    eval_halt_max_steps: int | None = Field(None, ge=1, description="ACT steps of a prediction; null: halt_max_steps")
    early_exit: Literal[False, "halt"] | int = Field(
        False,
        description="false: every example takes all steps; halt (or true): none after the network would halt; "
        "k: none after k equal answers in a row",
    )
    train_augmentations: int | None = Field(
        None, ge=1, description="fine-tune on so many puzzles of each task, the un-augmented one first; null: all"
    )
    vote_augmentations: int | None = Field(
        None, ge=1, description="predict so many puzzles of each task, the un-augmented one first; null: all"
    )
    tasks: list[str] | None = Field(None, min_length=1, description="ids of the test tasks to evaluate; null: all")
    time_budget: float | None = Field(
        None, gt=0, description="minutes for everything, counted from the start of the command; the run ends in time"
    )
    deadline: str | None = Field(None, description="the same as a clock time: 17:30 or 2026-11-03T17:30")
    ranking: Literal["votes", "mean_halt", "sum_halt"] = Field(
        "votes", description="what candidates rank by: votes, or the mean or the sum of their halting probabilities"
    )
    vote_steps: int = Field(1, ge=1, description="the answers after so many of the last ACT steps are votes")
    pool_checkpoints: int | None = Field(
        None, ge=2, description="votes of so many of the run's last evaluations count together; null: of one alone"
    )
    attempts: int = Field(10, ge=1, description="attempts per test input in submission.json")
    eval_ema: bool = Field(True, description="predict with the averaged weights where there are any")

    @field_validator("early_exit", mode="before")
    @classmethod
    def _leaves(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return "halt" if value else False
        if value != "halt" and not (isinstance(value, int) and value >= 2):
            raise ValueError(f"early_exit={value}: write false, halt, or how many equal answers in a row (2 or more)")
        return value

    @field_validator("evaluators")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        if len(value) > 1 or set(value) - {"arc", "exact"}:
            raise ValueError(f"evaluators={value}: choose [arc], [exact] or []")
        return value

    @model_validator(mode="after")
    def _evaluable(self) -> EvalConfig:
        if len(self.data_paths) != 1:
            raise ValueError(f"evaluation takes one data set, not data_paths={self.data_paths}")
        if self.time_budget is not None and self.deadline is not None:
            raise ValueError("time_budget and deadline are both set: leave one of them out")
        if self.pool_checkpoints is not None and (self.time_budget or self.deadline):
            raise ValueError(
                "pool_checkpoints pools the evaluations of several intervals, and a run in a given time makes one: "
                "leave it out, or pool saved predictions by evaluators.tools recount"
            )
        about_votes = (self.ranking, self.vote_steps, self.pool_checkpoints)
        if "arc" not in self.evaluators and about_votes != ("votes", 1, None):
            raise ValueError("ranking, vote_steps and pool_checkpoints are about votes: set evaluators=[arc]")
        if self.epochs == 0 and self.load_checkpoint is None:
            raise ValueError("epochs=0 evaluates a checkpoint as it is: name it by load_checkpoint=DIR")
        if self.epochs == 0 and self.puzzle_rows not in (None, "keep"):
            raise ValueError(
                f"epochs=0 evaluates the checkpoint as it is, which puzzle_rows={self.puzzle_rows} would undo: "
                "fine-tune (epochs > 0) or set puzzle_rows=keep"
            )
        return self

    @property
    def conditions(self) -> dict[str, Any]:
        """What a score depends on besides the weights and the data; it is written beside it."""
        names = (
            *("load_checkpoint", "attempts", "eval_ema", "evaluators", "early_exit", "vote_augmentations", "tasks"),
            *("eval_halt_max_steps", "time_budget", "deadline", "ranking", "vote_steps", "pool_checkpoints"),
            "canvases",
        )
        arch = self.arch
        recursion = {"halt_max_steps": arch.halt_max_steps, "H_cycles": arch.H_cycles, "L_cycles": arch.L_cycles}
        return self.model_dump(mode="json", include=set(names)) | recursion

    @property
    def load_averaged(self) -> bool:
        """As it is evaluated, a checkpoint that is not trained further is loaded."""
        return self.eval_ema or self.epochs > 0

    @property
    def rows_from(self) -> str:
        return self.puzzle_rows or ("keep" if self.epochs == 0 else "mean")


Config = TypeVar("Config", bound=RunConfig)
