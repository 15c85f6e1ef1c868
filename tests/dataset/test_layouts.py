"""dataset/layouts/: files of tasks as people have them, each kind with an input of its own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.build.arc import build_arc
from dataset.build.load_tasks import LoadedTasks, load_mix
from dataset.build.settings import ArcSettings
from dataset.build.sources import parse_sources
from dataset.layouts import json_text
from dataset.layouts.read_tasks import ReadRules
from dataset.storage import open_manifest
from dataset.tasks import Task
from tests.conftest import random_task, write_kaggle
from utils.errors import DataError, InputError, SettingError

RNG = np.random.default_rng(11)
TASK = random_task("t", RNG, train=4, test=2)
OTHER = random_task("u", RNG, train=3, test=1)


def quiet(done: int, total: int) -> None:
    """Progress that nobody looks at."""


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def pairs(task: Task) -> list[Any]:
    return [{"input": a.tolist(), "output": b.tolist()} for a, b in task.pairs if b is not None]


def lists(task: Task) -> list[Any]:
    return [[a.tolist(), b.tolist()] for a, b in task.pairs if b is not None]


def load(*words: Path | str, **rules: Any) -> LoadedTasks:
    return load_mix(parse_sources([str(word) for word in words]), ReadRules(**rules), quiet)


def contents(loaded: LoadedTasks) -> dict[str, list[list[Any]]]:
    """Every pair of each task, by id."""
    return {task.id: lists(task) for task in loaded.tasks}


def wide(side: int) -> dict[str, Any]:
    return {"input": [[1] * side], "output": [[2] * side]}


@pytest.mark.parametrize(
    ("name", "value", "ids"),
    [
        ("t.json", {"uid": "x", "examples": pairs(TASK)}, ["t"]),
        ("t.json", {"examples": lists(TASK)}, ["t"]),
        ("t.json", {"train": lists(TASK), "test": []}, ["t"]),
        ("t.json", lists(TASK), ["t"]),
        ("t.json", {"train": [], "test": pairs(TASK)}, ["t"]),
        ("a.json", {"t": TASK.to_json()}, ["t"]),
        ("a.json", {"t": {"examples": lists(TASK)}}, ["t"]),
        ("a.json", [{"name": "t", "data": TASK.to_json()}], ["t"]),
        ("a.json", [{"name": "t.json", "data": lists(TASK)}], ["t"]),
        ("a.json", [{"task_id": "t", **TASK.to_json()}], ["t"]),
        ("a.jsonl", "\n".join(json.dumps({"examples": lists(TASK), "seeds": []}) for _ in "ab"), ["a-1", "a-2"]),
        ("a.json", "\r\n".join(json.dumps({"id": i, "examples": pairs(TASK)}) for i in (7, 8)), ["7", "8"]),
        ("a.json", {"train": {"t": TASK.to_json()}, "eval": {"u": TASK.to_json()}}, ["t", "u"]),
        ('it\'s [a], "b" c.json', TASK.to_json(), ['it\'s [a], "b" c']),
    ],
)
def test_each_layout_gives_the_same_pairs(name: str, value: Any, ids: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / name, value)
    want = {task_id: lists(TASK) for task_id in ids}
    assert contents(load(path)) == want
    assert contents(load(tmp_path)) == want


def test_tasks_by_subset_keep_their_subsets(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", {"train": {"t": TASK.to_json()}, "eval": {"u": OTHER.to_json()}})
    assert {task.id: task.subset for task in load(path).tasks} == {"t": "training", "u": "evaluation"}
    assert [task.id for task in load(f"{path},subsets=eval").tasks] == ["u"]
    for name in ("eval", "evaluation"):
        build_arc(
            ArcSettings(sources=[str(path)], test_set_name=name, num_aug=0, output_dir=str(tmp_path / name)), quiet
        )
        manifest = open_manifest(tmp_path / name)
        assert manifest is not None and manifest.settings["test_set_name"] == "evaluation"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("zipped", [False, True])
def test_encodings_and_gzip(encoding: str, zipped: bool, tmp_path: Path) -> None:
    data = json.dumps(TASK.to_json(), indent=1).replace("\n", "\r\n").encode(encoding)
    path = tmp_path / ("t.json.gz" if zipped else "t.json")
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert contents(load(tmp_path)) == {"t": lists(TASK)}


def test_one_id_twice_in_a_file_has_a_remedy_that_can_be_followed(tmp_path: Path) -> None:
    other = random_task("o", np.random.default_rng(9)).to_json()
    write(tmp_path / "t.json", [{"id": 7, "data": TASK.to_json()}, {"id": "7", "data": other}])
    with pytest.raises(
        DataError, match=r"t\.json has two different tasks with the id '7': give one of them another id$"
    ):
        load(tmp_path)


def test_a_cut_gzip_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.json.gz").write_bytes(gzip.compress(json.dumps(TASK.to_json()).encode())[:-20])
    with pytest.raises(DataError, match=r"t\.json\.gz is not a whole gzip file"):
        load(tmp_path)


@pytest.mark.parametrize("first", ["_", "-"])
@pytest.mark.parametrize("second", ["_", "-"])
@pytest.mark.parametrize("gz", ["", ".gz"])
def test_solutions_are_found_beside_challenges(
    first: str, second: str, gz: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"t": {**TASK.to_json(), "test": [{"input": a.tolist()} for a, _ in TASK.test]}}
    solved = {"t": [b.tolist() for _, b in TASK.test if b is not None]}
    challenges = tmp_path / f"my_arc{first}held{second}challenges.json{gz}"
    for path, value in ((challenges, asked), (tmp_path / f"my_arc{first}held{second}solutions.json{gz}", solved)):
        data = json.dumps(value).encode()
        path.write_bytes(gzip.compress(data) if gz else data)
    want = {"t": lists(TASK)}
    assert contents(load(challenges)) == contents(load(tmp_path)) == want
    assert contents(load(f"{tmp_path / 'my_arc'},subsets=held")) == want
    assert "passed over" not in capsys.readouterr().out


def test_a_folder_of_somebody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "t.json", TASK.to_json())
    for hidden in ("._t.json", ".ipynb_checkpoints/t-checkpoint.json", "__MACOSX/t.json", "sub/.x/y.json"):
        write(tmp_path / hidden, "not JSON")
    write(tmp_path / "split.json", {"train": ["a.json"], "test": ["b.json"]})
    write(tmp_path / "index.json", ["a", "b"])
    write(tmp_path / "metadata.json", {"t": {"difficulty": [0.5], "n": 3}})
    write(tmp_path / "x_solutions.json", {"q": [[[1]]]})
    loaded = load(tmp_path)
    assert contents(loaded) == {"t": lists(TASK)}
    said = capsys.readouterr().out
    assert "1 task from 1 file of tasks" in said
    assert "4 files without tasks passed over: index.json, metadata.json, split.json, .." in said
    assert loaded.left_out[tmp_path.name]["files"]["count"] == 4


def test_globs_choose_files_and_ids(tmp_path: Path) -> None:
    for name in ("a/x1", "a/x2", "b/x3", "b/c/y4"):
        write(tmp_path / "f" / f"{name}.json", TASK.to_json())
    ids = {
        words: sorted(contents(load(f"{tmp_path / 'f'},{words}")))
        for words in ("include=x*", "exclude=b", "include=a/*+y4.json", "include=b,exclude=b/c/*", "exclude=x[12].json")
    }
    assert ids == {
        "include=x*": ["x1", "x2", "x3"],
        "exclude=b": ["x1", "x2"],
        "include=a/*+y4.json": ["x1", "x2", "y4"],
        "include=b,exclude=b/c/*": ["x3"],
        "exclude=x[12].json": ["x3", "y4"],
    }
    path = write(tmp_path / "ids.json", {name: TASK.to_json() for name in ("k1", "k2", "z")})
    assert sorted(contents(load(f"{path},exclude=k*"))) == ["z"]
    for place in (tmp_path / "f", path):
        with pytest.raises(SettingError, match="leave none of its"):
            load(f"{place},include=nothing")


def test_one_id_twice_names_both_files_and_a_remedy_that_works(tmp_path: Path) -> None:
    write(tmp_path / "a" / "t.json", TASK.to_json())
    write(tmp_path / "b" / "t.json", OTHER.to_json())
    with pytest.raises(DataError) as error:
        load(tmp_path)
    said = str(error.value)
    assert "a/t.json and b/t.json" in said and "'t'" in said
    remedy = next(word for word in said.split() if word.startswith(f"{tmp_path},exclude="))
    assert contents(load(remedy)) == {"t": lists(TASK)}
    write(tmp_path / "b" / "t.json", TASK.to_json())
    assert contents(load(tmp_path)) == {"t": lists(TASK)}


def test_what_does_not_fit_is_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_kaggle(tmp_path, "held", [random_task("h", RNG)])
    write(tmp_path / "f" / "some.json", [*pairs(TASK), wide(31), wide(93)])
    write(tmp_path / "f" / "all.json", {"train": [wide(40)], "test": [wide(40)]})
    write(tmp_path / "f" / "part.json", {"train": [*pairs(TASK), wide(40)], "test": pairs(OTHER)})
    words = [f"{tmp_path / 'arc'},subsets=held", str(tmp_path / "f")]
    build_arc(ArcSettings(sources=words, test_set_name="held", num_aug=1, output_dir=str(tmp_path / "o")), quiet)
    said = capsys.readouterr().out
    assert "5 pairs too large for the canvas left out: all, train pair 0, all, test pair 0, part, train pair" in said
    assert "1 task without a pair that fits left out: all" in said
    manifest = open_manifest(tmp_path / "o")
    assert manifest is not None and manifest.counts["tasks"] == 3
    assert manifest.settings["left_out"]["f"] == {
        "pairs_too_large": {
            "count": 5,
            "such_as": ["all, train pair 0", "all, test pair 0", "part, train pair 6"],
        },
        "tasks_too_large": {"count": 1, "such_as": ["all"]},
    }


def test_a_test_pair_of_the_test_set_must_fit(tmp_path: Path) -> None:
    write(tmp_path / "f" / "a.json", TASK.to_json())
    path = write(tmp_path / "f" / "b.json", {"train": [*pairs(OTHER), wide(31)], "test": [wide(31)]})
    for words, name in ((str(tmp_path / "f"), "f"), (f"{tmp_path / 'f'},name=held", "held")):
        settings = ArcSettings(sources=[words], test_set_name=name, num_aug=0, output_dir=str(tmp_path / "o"))
        with pytest.raises(DataError, match=r"b\.json.*test pair 0, input is 1 x 31.*exclude="):
            build_arc(settings, quiet)
        assert not (tmp_path / "o").exists()
    write(path, {"train": [*pairs(OTHER), wide(31)], "test": pairs(OTHER)})  # a demonstration may be left out
    build_arc(settings, quiet)
    assert (tmp_path / "o").exists()


def test_the_grid_size_filters_before_the_draws(tmp_path: Path) -> None:
    """Tasks and pairs are drawn from those that fit."""
    small, large = wide(3), wide(12)
    write(tmp_path / "re" / "r.json", [large] * 80 + [small] * 3)
    (task,) = load(f"{tmp_path / 're'},max_pairs=3", max_side=5).tasks
    assert [a.shape for a, _ in task.train] == [(1, 3)] * 3
    tasks = {f"k{i}": {"train": [small if i > 7 else large], "test": [small]} for i in range(10)}
    path = write(tmp_path / "ids.json", tasks)
    for seed in range(5):
        assert sorted(contents(load(f"{path},max_tasks=2", max_side=5, seed=seed))) == ["k8", "k9"]


@pytest.mark.parametrize("form", ["pairs", "train", "test", "examples", "lists"])
def test_a_draw_parses_only_what_it_keeps(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = random_task("t", RNG, train=60, test=0)
    value: Any = {
        "pairs": pairs(task),
        "train": {"train": pairs(task), "test": []},
        "test": {"train": [], "test": pairs(task)},
        "examples": {"examples": pairs(task)},
        "lists": lists(task),
    }[form]
    write(tmp_path / "f" / "t.json", value)
    parsed = []
    from dataset.layouts import read_tasks

    original = read_tasks.parse_grid
    monkeypatch.setattr(read_tasks, "parse_grid", lambda grid, where: parsed.append(where) or original(grid, where))
    loaded = load(f"{tmp_path / 'f'},max_pairs=5", seed=3)
    assert len(loaded.tasks[0].pairs) == 5 and len(parsed) == 10 and loaded.not_parsed == {"f": 55}
    everything = [json.dumps(pair) for pair in lists(task)]
    places = [everything.index(json.dumps(pair)) for pair in lists(loaded.tasks[0])]
    assert places == sorted(places)
    again = load(f"{tmp_path / 'f'},max_pairs=5", seed=4)
    assert contents(again) != contents(loaded)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ('[{"a": 1}, {"b": "}{"}]', 2),
        (' [ {"a":"x"} ]\n', 1),
        ('[{"a": {"b": 1}}]', None),
        ('[{"a": "\\""}]', None),
        ('[{"a": 1}', None),
        ('[{"a": 1} {"b": 1}]', None),
        ('{"a": 1}', None),
        ("[]", None),
    ],
)
def test_objects_are_cut_only_where_it_is_safe(text: str, pieces: int | None) -> None:
    cut = json_text.cut_objects(text)
    assert (None if cut is None else len(cut)) == pieces
    if cut is not None:
        assert [json.loads(piece) for piece in cut] == json.loads(text)


@pytest.mark.parametrize(
    "value",
    [{"train": [{"in": [[1]], "out": [[1]]}]}, {"a": [[[1, 2]]]}, [[1, 2]], {"x": "y"}, '{"a": 1}\n{"b": 2}'],
)
def test_unknown_layouts_say_what_was_found(value: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "odd.json", value)
    for place in (path, tmp_path):
        with pytest.raises(InputError, match=r"odd\.json.*use a task \{.*per line"):
            load(place)


def test_a_task_without_demonstrations_is_no_test_task(tmp_path: Path) -> None:
    path = write(tmp_path / "held.json", {"t": {"train": [], "test": pairs(TASK)}})
    with pytest.raises(SettingError, match="'t' of the test set held has no demonstrations"):
        build_arc(ArcSettings(sources=[str(path)], test_set_name="held", output_dir=str(tmp_path / "o")), quiet)
    assert not (tmp_path / "o").exists()


CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="the examples of others' files are not here")
@pytest.mark.parametrize(
    ("folder", "count"),
    [("01_re_arc", 2), ("02_1d_arc", 1), ("03_gz", 1), ("04_empty_train", 2), ("06_barc", 3), ("07_larc", 1)],
)
def test_examples_of_others_are_read(folder: str, count: int) -> None:
    assert len(load(CASES / folder).tasks) == count
