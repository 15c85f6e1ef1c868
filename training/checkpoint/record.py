"""What weights say of themselves: one record, whatever stores the weights."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.arch import ArchConfig
from training.checkpoint.sources.network_config import NetworkConfig
from training.config import RunConfig

RECORD = "checkpoint.json"
FORMAT_VERSION, WITH_CHANGED_ROWS = 1, 2
"""Formats that are read.  A checkpoint has the second if a file of it has only the rows that changed: a program that
does not know such files must not take the others for all."""

WeightsAre = Literal["averaged", "raw", "unknown"]


class StoredFile(BaseModel):
    """Size and checksum of a file of a checkpoint."""

    bytes: int
    sha256: str


class StageData(BaseModel):
    """A data set of a stage, for those who get the weights without it."""

    model_config = ConfigDict(extra="allow")

    name: str
    sources: list[str] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    tokens: dict[str, int | None] | None = None


class Stage(BaseModel):
    """One of the runs that weights come from."""

    model_config = ConfigDict(extra="allow")

    run: str = "a run"
    data: list[StageData] = Field(default_factory=list)
    recipe: dict[str, Any] = Field(default_factory=dict, description="settings with the role `recipe`")
    step: int | None = Field(default=None, description="how many steps it made; None in the record of the stage itself")


class CheckpointRecord(BaseModel):
    """What weights say of themselves: `checkpoint.json` of a checkpoint, or what an exported folder tells.

    A file of weights alone has an empty record.  Older records leave out what was not known then; it has its default.
    """

    model_config = ConfigDict(extra="ignore")

    format: int = FORMAT_VERSION
    step: int | None = Field(default=None, description="optimizer steps of the last stage")
    ends_interval: bool = Field(default=True, description="a checkpoint that ends an interval is never removed")
    interval: int | None = Field(default=None, description="how many intervals were complete, at the end of one")
    config: dict[str, Any] = Field(default_factory=dict, description="every setting of the run")
    data: list[str | None] = Field(default_factory=list, description="fingerprint of each data set, if it has one")
    puzzles: str | None = Field(default=None, description="fingerprint of which puzzle each row belongs to")
    tasks: str | None = Field(default=None, description="fingerprint of which task each row belongs to, if to tasks")
    task_keys: dict[str, str] = Field(
        default_factory=dict, description="tasks trained on, whatever their names: whole or demonstrations"
    )
    stages: list[Stage] = Field(default_factory=list, description="the runs that led here, the first one first")
    git: dict[str, Any] | None = Field(default=None, description="commit of the code, and whether it had changes")
    files: dict[str, StoredFile] = Field(default_factory=dict, description="the files of a checkpoint by name")

    # What only an exported folder tells.
    weights: WeightsAre | None = None
    network: NetworkConfig | None = None
    scores: list[dict[str, Any]] = Field(default_factory=list)

    @field_validator("config")
    @classmethod
    def _check_config(cls, config: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(config.get("arch") or {}, dict):
            raise ValueError("arch is not a dictionary")
        if not isinstance(config.get("ema_rate", 0.0), int | float):
            raise ValueError("ema_rate is not a number")
        return config

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of the weights."""
        return self == CheckpointRecord()

    @property
    def arch(self) -> dict[str, Any]:
        """The settings of the network, as they were recorded; empty if they were not."""
        return dict(self.config.get("arch") or {})

    @property
    def sources(self) -> list[str]:
        """Where the data of all stages come from, such as `sudoku:generate`; empty if that is not known."""
        return [source for stage in self.stages for one in stage.data for source in one.sources]

    @property
    def ema_rate(self) -> float:
        return float(self.config.get("ema_rate", RunConfig.model_fields["ema_rate"].default))

    @property
    def optimizer(self) -> str | None:
        """The optimizer of the last stage; None if nothing is known of it."""
        recipe = self.config or (self.stages[-1].recipe if self.stages else {})
        return recipe.get("optimizer", RunConfig.model_fields["optimizer"].default) if recipe else None

    @property
    def complete_stages(self) -> list[Stage]:
        """The stages, the last of which has its number of steps too."""
        if not self.stages:
            return []
        return [*self.stages[:-1], self.stages[-1].model_copy(update={"step": self.step})]

    def has_part(self, part: str) -> bool:
        """Whether the checkpoint stores a part of the state, such as `ema`."""
        return f"{part}.safetensors" in self.files

    def unlike(self, arch: ArchConfig) -> list[str]:
        """Returns the settings of the network that differ from `arch` although the shapes of the weights do not show
        it, in words."""
        names = [name for name in ArchConfig.unseen_in_weights() if name in self.arch]
        return [
            f"arch.{name}: {self.arch[name]} there, {getattr(arch, name)} here"
            for name in names
            if self.arch[name] != getattr(arch, name)
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `checkpoint.json`; what is not known is left out."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"weights", "network", "scores"})
