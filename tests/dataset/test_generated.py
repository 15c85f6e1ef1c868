"""Generated pairs beside a task's own: what they extend, how often they are seen, and that none is of a scored task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.augmentation import Augmentation
from dataset.build.arc import build_arc
from dataset.build.select_tasks import refuse_unknown_test_set
from dataset.build.settings import ArcSettings
from dataset.canvas import Canvas
from dataset.sampling.bucket_streams import BucketStreams, Position, measure_demand
from dataset.sampling.interval_plan import plan_interval, take_rows
from dataset.sampling.joined import JoinedSplits
from dataset.statistics.__main__ import format_statistics
from dataset.statistics.measure import measure_data_set
from dataset.storage import Split, open_catalog, open_manifest, open_split
from dataset.tasks import Task
from tests.builders.splits import FakeSplit
from tests.conftest import random_task, write_kaggle
from utils.errors import DataError, SettingError

SIDE = 6


def as_pairs(task: Task) -> list[dict[str, Any]]:
    return [{"input": a.tolist(), "output": b.tolist()} for a, b in task.pairs if b is not None]


def turned(pair: dict[str, Any]) -> dict[str, Any]:
    """A pair under an augmentation."""
    augmentation = Augmentation(3, (0, 2, 1, 4, 3, 9, 8, 7, 6, 5))
    return {side: augmentation.apply(np.array(grid, dtype=np.uint8)).tolist() for side, grid in pair.items()}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Training tasks t0 to t3 of three pairs each, t4 of one that repeats h1; scored tasks h0 and h1; and generated
    pairs, eight of each training task and of h0 (also as `other`, under an augmentation), and of a task elsewhere."""
    rng = np.random.default_rng(5)
    trained = [random_task(f"t{i}", rng, train=2, test=1, side=SIDE - 1) for i in range(4)]
    scored = [random_task(f"h{i}", rng, train=2, test=2, side=SIDE - 1) for i in range(2)]
    again = Task("t4", "", scored[1].train, scored[1].test)
    write_kaggle(tmp_path, "training", [*trained, again])
    write_kaggle(tmp_path, "held", scored)
    generated = {f"t{i}": as_pairs(random_task("", rng, train=7, test=1, side=SIDE - 1)) for i in range(5)}
    generated["h0"] = as_pairs(random_task("", rng, train=8, side=SIDE - 1))
    generated["elsewhere"] = as_pairs(random_task("", rng, train=8, side=SIDE - 1))
    generated["t3"].append(turned(as_pairs(scored[0])[-1]))  # a test pair of h0
    (tmp_path / "made").mkdir()
    for name, pairs in generated.items():
        (tmp_path / "made" / f"{name}.json").write_text(json.dumps(pairs))
    return tmp_path


def build(corpus: Path, output: str, *generated: str, **more: Any) -> Path:
    settings = {"output_dir": str(corpus / output), "num_aug": 3, "max_grid_size": SIDE, "test_set_name": "held"}
    own = f"{corpus / 'arc'},subsets=training+held"
    build_arc(ArcSettings(sources=[own, *generated], **settings | more), lambda done, total: None)
    return corpus / output


def shown(split: Split, group: int) -> list[tuple[bytes, bytes]]:
    """The un-augmented examples of a group."""
    first = split.group_indices[group]
    inputs, labels = split.read(np.arange(split.puzzle_indices[first], split.puzzle_indices[first + 1]))
    return [(a.tobytes(), b.tobytes()) for a, b in zip(inputs, labels, strict=True)]


@pytest.mark.parametrize("fmt", ["compact", "expanded"])
def test_generated_pairs_are_more_examples_of_the_same_puzzles(
    corpus: Path, fmt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = build(corpus, "plain", format=fmt)
    capsys.readouterr()
    folder = build(corpus, "more", f"{corpus / 'made'},extends=true,weight=0.5", format=fmt)
    said = capsys.readouterr().out
    split, before = open_split(folder, "train"), open_split(plain, "train")
    names = [open_catalog(folder).lookup(int(split.puzzle_identifiers[i]))[0] for i in split.group_indices[:-1]]
    assert names == ["h0", "h1", "t0", "t1", "t2", "t3", "t4", "t0", "t1", "t2"]
    for group, own in ((7, 2), (8, 3), (9, 4)):  # the same identifiers, and so the same rows and augmentations
        puzzles = [split.puzzle_identifiers[slice(*split.group_indices[g : g + 2])].tolist() for g in (group, own)]
        assert puzzles[0] == puzzles[1] and len(puzzles[0]) == 4
        made = json.loads((corpus / "made" / f"t{own - 2}.json").read_text())
        assert len(shown(split, group)) == len(made) == 8
    if fmt == "compact":
        identities = split.identities(np.arange(split.layout.num_puzzles))
        assert identities.tasks[split.group_indices[7]] == identities.tasks[split.group_indices[2]]
        assert np.array_equal(*(identities.augmentations[slice(*split.group_indices[g : g + 2])] for g in (7, 2)))
    for group in range(7):  # what was there is as it was
        assert shown(split, group) == shown(before, group)
    assert split.metadata.num_puzzle_identifiers == before.metadata.num_puzzle_identifiers
    assert before.visit_sizes is None and open_split(folder, "test").visit_sizes is None
    assert split.group_weights is not None and split.group_weights[7:].tolist() == [0.5] * 3
    assert "made: 24 pairs extend 3 training tasks, weight 0.5" in said
    assert f"generated pairs: {1.5 / 8.5:.1%} of visits" in said
    manifest = open_manifest(folder)
    assert manifest is not None and manifest.counts["generated_pairs"] == 24 and manifest.sources == ["arc", "made"]
    assert manifest.settings["subsets"] == ["held", "training"]
    assert "24 of 3 tasks besides" in format_statistics(measure_data_set(folder))
    assert measure_data_set(folder).num_tasks == measure_data_set(plain).num_tasks


def test_no_pair_is_of_a_scored_task(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By id (h0), as a duplicate under another name (t4 is h1), and by a pair under an augmentation (t3)."""
    folder = build(corpus, "more", f"{corpus / 'made'},extends=true")
    said = capsys.readouterr().out
    assert "made: pairs of 3 tasks left out, since scored tasks have their rules: h0, t3, t4" in said
    assert "made: pairs of 1 task left out, since no other source has a task of that id: elsewhere" in said
    manifest = open_manifest(folder)
    assert manifest is not None and manifest.settings["left_out"]["made"] == {
        "pairs_of_scored_tasks": {"count": 3, "such_as": ["h0", "t3", "t4"]},
        "pairs_without_a_task": {"count": 1, "such_as": ["elsewhere"]},
    }
    split = open_split(folder, "train")
    scored = open_split(folder, "test").puzzle_identifiers
    tuned = split.restricted_to(scored)  # what fine-tuning on the test tasks sees
    assert len(tuned.group_indices) - 1 == 2 and tuned.visit_sizes is not None
    assert tuned.metadata.mean_puzzle_examples == tuned.num_examples / tuned.layout.num_puzzles
    made = json.loads((corpus / "made" / "h0.json").read_text())
    inputs = {row.tobytes() for row in split.read(np.arange(split.num_examples))[0]}
    side = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for pair in made:
        grid = np.array(pair["input"])
        canvas = side.copy()
        canvas[: len(grid), : len(grid[0])] = grid + 2
        canvas[: len(grid), len(grid[0]) : len(grid[0]) + 1] = 1
        canvas[len(grid) : len(grid) + 1, : len(grid[0])] = 1
        assert canvas.tobytes() not in inputs


def test_a_pair_whose_output_is_not_known_is_found_by_its_input(corpus: Path) -> None:
    (corpus / "arc_held_solutions.json").unlink()
    folder = build(corpus, "more", f"{corpus / 'made'},extends=true")
    split, catalog = open_split(folder, "train"), open_catalog(folder)
    generated = [catalog.lookup(int(split.puzzle_identifiers[i]))[0] for i in split.group_indices[7:-1]]
    assert generated == ["t0", "t1", "t2"]


def test_weights_are_shares_of_examples(corpus: Path) -> None:
    """A visit of generated pairs takes as many as one of the task's own, three: so weight 2 means two thirds."""
    folder = build(corpus, "more", f"{corpus / 'made'},extends=true,weight=2")
    data = JoinedSplits([open_split(folder, "train")])
    plan = plan_interval(data.layout, 6, 400, 3, 0, data.group_weights)
    owners = data.layout.groups_of(data.layout.puzzles_of(np.arange(data.num_examples)))
    seen = np.zeros(data.num_examples, dtype=np.int64)
    for step in range(plan.num_steps):
        rows = take_rows(plan, step, 0, 6)
        np.add.at(seen, rows.examples, 1)
        for seed in np.unique(rows.visit_seeds):  # of a visit
            mine = rows.examples[rows.visit_seeds == seed]
            assert len(set(mine)) == len(mine) and len(set(rows.puzzles[rows.visit_seeds == seed])) == 1
            assert len(mine) <= 3 or owners[mine[0]] == 6  # t4 has four pairs
    of_group = np.bincount(owners, seen, minlength=10)
    assert of_group[7:].sum() / of_group[2:5].sum() == pytest.approx(2, rel=0.05)
    generated = seen[owners >= 7]
    assert generated.min() > 0 and generated.std() / generated.mean() < 0.4  # every pair is drawn
    assert np.array_equal(
        *(
            np.concatenate([take_rows(plan, 5, *part).examples for part in parts])
            for parts in ([(0, 6)], [(0, 2), (2, 3), (3, 6)])
        )
    )


def test_buckets_take_the_same_share(corpus: Path) -> None:
    folder = build(corpus, "more", f"{corpus / 'made'},extends=true,weight=2")
    data = JoinedSplits([open_split(folder, "train")])
    _, visits = measure_demand(data)
    # Two test tasks of two demonstrations, five tasks, one of which has four pairs, and three times twice three more.
    assert visits.sum() == pytest.approx(data.examples_per_epoch) == pytest.approx(2 * 2 + 4 * 3 + 4 + 18)
    first, end, own = data.layout.first_examples[[2, 5, 7]]
    streams = BucketStreams(data, [Canvas(4, 4), Canvas(SIDE, SIDE)], seed=1)
    counts = np.zeros(2)
    for bucket in range(2):
        stream = streams.stream(bucket, 4, Position())
        segment = [next(stream) for _ in range(400)]
        stream.close()
        rows = streams._segment(bucket, 4, 0)
        assert rows.examples.size and len(segment) == 400
        counts += [(rows.examples >= own).sum(), ((rows.examples >= first) & (rows.examples < end)).sum()]
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.1)


def test_an_epoch_takes_what_each_puzzle_has_where_puzzles_of_a_group_differ() -> None:
    split = FakeSplit([[1, 5], [2, 2]])
    split.layout = split.layout._replace(visit_sizes=np.array([2, 1]))
    data = JoinedSplits([split])  # type: ignore[list-item]
    _, visits = measure_demand(data)
    assert visits.sum() == pytest.approx(data.examples_per_epoch) == pytest.approx((1 + 2) / 2 + 1)


def test_caps_and_canvases_hold_for_generated_pairs(corpus: Path) -> None:
    (corpus / "made" / "t0.json").write_text(
        json.dumps([{"input": [[1] * 7], "output": [[1]]}, *json.loads((corpus / "made" / "t0.json").read_text())])
    )
    folder = build(corpus, "more", f"{corpus / 'made'},extends=true,max_pairs=2,include=t[01].json")
    split = open_split(folder, "train")
    assert len(split.group_indices) - 1 == 9
    assert [len(shown(split, group)) for group in (7, 8)] == [2, 2]
    assert split.visit_sizes is not None and split.visit_sizes.tolist() == [2, 2, 3, 3, 3, 3, 4, 2, 2]


def test_two_sources_of_generated_pairs(corpus: Path) -> None:
    made = f"{corpus / 'made'},extends=true,include=t0.json"
    with pytest.raises(SettingError, match=r"both have a subset 'made': give one of them another name"):
        build(corpus, "more", made, f"{made},weight=2")
    split = open_split(build(corpus, "more", made, f"{made},weight=2,max_pairs=5,name=other"), "train")
    assert split.group_weights is not None and split.group_weights[7:].tolist() == [1, 2]
    assert [len(shown(split, group)) for group in (7, 8)] == [8, 5]


def test_sources_that_only_extend_are_refused(corpus: Path) -> None:
    settings = ArcSettings(sources=[f"{corpus / 'made'},extends=true"], output_dir=str(corpus / "out"))
    with pytest.raises(SettingError, match=r"has no tasks to extend: name the source of the tasks too"):
        build_arc(settings, lambda done, total: None)
    assert not (corpus / "out").exists()


def test_generated_pairs_are_not_taken_for_the_test_set(tmp_path: Path) -> None:
    """A prefix says its subsets by itself, and one that only extends has none: no task need be read to see that."""
    rng = np.random.default_rng(0)
    prefix = write_kaggle(tmp_path, "training", [random_task("t", rng)])
    write_kaggle(tmp_path, "made", [random_task("t", rng)])
    known = f"{prefix},subsets=training"
    settings = ArcSettings(sources=[known, f"{prefix},subsets=made,extends=true"], test_set_name="made", output_dir="")
    with pytest.raises(SettingError, match=r"--test-set-name made names none of the subsets training, and"):
        refuse_unknown_test_set(settings)
    refuse_unknown_test_set(settings.model_copy(update={"test_set_name": "training"}))


@pytest.mark.parametrize(
    ("fmt", "file", "damage", "said"),
    [
        ("compact", "tasks.json", {"task": 0}, "generated pairs are of task number 0, which is none of the training"),
        ("compact", "tasks.json", {"task": 99}, "generated pairs are of task number 99, which is none of the training"),
        ("compact", "tasks.json", {"pairs": 7}, "counts 47 pairs"),
        ("compact", "tasks.json", {"weight": 0}, "generated.0.weight"),
        ("expanded", "train/all__visit_sizes.npy", np.arange(10), "does not have a positive number for each group"),
        ("expanded", "train/all__visit_sizes.npy", np.ones(9, np.int64), "does not have a positive number for each"),
    ],
)
def test_damage_is_noticed_when_a_data_set_is_opened(corpus: Path, fmt: str, file: str, damage: Any, said: str) -> None:
    folder = build(corpus, "more", f"{corpus / 'made'},extends=true", format=fmt)
    if isinstance(damage, dict):
        listed = json.loads((folder / file).read_text())
        assert [entry["task"] for entry in listed["generated"]] == [2, 3, 4]
        listed["generated"][0] |= damage
        (folder / file).write_text(json.dumps(listed))
    else:
        np.save(folder / file, damage)
    with pytest.raises(DataError, match=said):
        open_split(folder, "train")
