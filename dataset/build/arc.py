"""Builds a data set of ARC tasks in stages.

settings --load_tasks--> LoadedTasks --select_tasks--> Selection
Selection --plan_augmentations--> AugmentedTasks --write_data_set--> files, Manifest
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dataset.build.distinct_augmentations import plan_augmentations
from dataset.build.load_tasks import load_tasks
from dataset.build.select_tasks import refuse_unknown_test_set, select_tasks
from dataset.build.settings import ArcSettings
from dataset.storage import AugmentedTasks, DataOrigin, Manifest, check_target, write_data_set


def build_arc(settings: ArcSettings, progress: Callable[[int, int], None]) -> Manifest:
    """Builds the data set that the settings describe, and prints what a user should know of it.

    Args:
        progress: called with (done, in total), once for each file, task or group of examples.

    Raises:
        SettingError, DataError: naming the setting, or the file and the task, and the remedy.  Nothing is left behind.
    """
    check_target(Path(settings.output_dir))
    refuse_unknown_test_set(settings)
    loaded = load_tasks(settings, progress)
    selection = select_tasks(loaded, settings)
    workers = settings.num_workers
    augmentations = plan_augmentations(selection.tasks, selection.num_aug, settings.seed, workers, progress)
    content = AugmentedTasks(
        tasks=selection.tasks,
        test_ids=selection.test_ids,
        augmentations=augmentations,
        side=settings.max_grid_size,
        identifiers_start=settings.puzzle_identifiers_start,
        weights=selection.weights,
        generated=selection.generated,
    )
    origin = DataOrigin(
        sources=selection.sources,
        settings=selection.recorded | settings.recorded(),
        counts=selection.counts,
        task_keys=selection.task_keys,
    )
    return write_data_set(
        Path(settings.output_dir),
        content,
        origin,
        fmt=settings.format,
        seed=settings.seed,
        progress=progress,
        workers=workers,
    )
