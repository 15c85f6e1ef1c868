"""evaluators/report/: two runs side by side, and what a run's folder says of its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dataset.augmentation import Augmentation
from dataset.storage import open_catalog, open_test_tasks
from dataset.tasks import Task
from evaluators.inference.predictions import Predictions
from evaluators.report.__main__ import write_report
from evaluators.report.comparison import describe_comparison
from evaluators.report.page import render_page
from evaluators.report.recipe import describe_recipe, list_differences
from evaluators.report.saved_run import read_saved_run
from evaluators.report.task_values import format_grid
from tests.builders.browser import find_in_browser
from tests.builders.grids import encode_grid
from tests.conftest import run_script, write_kaggle
from utils.errors import DataError, SettingError

Answers = Mapping[tuple[str, int], Sequence[np.ndarray]]


def saved(
    run: Path, data: Path, answers: Answers, settings: Mapping[str, Any] | None = None, tasks: Any = None
) -> Path:
    """A run's folder with an evaluation in which each of these grids has a vote, and the halting logits fall."""
    catalog, rows = open_catalog(data), []
    for (name, index), grids in answers.items():
        (identifier,) = catalog.identifiers_of(name, Augmentation.parse(name)[1])
        rows += [(encode_grid(grid, 6), 5.0 - n, identifier, index) for n, grid in enumerate(grids)]
    tokens, halts, identifiers, indices = zip(*rows, strict=True)
    folder = run / "evaluation_step_5"
    folder.mkdir(parents=True)
    Predictions(
        np.stack(tokens),
        *(np.array(v, dtype=t) for v, t in ((halts, np.float32), (identifiers, np.int32))),
        np.array(indices, dtype=np.int32),
        np.ones(len(rows), dtype=np.int32),
    ).save(folder / "predictions.npz")
    conditions = {"data_path": str(data), "attempts": 2, "step": 5, "tasks": tasks}
    (folder / "scores.json").write_text(json.dumps({"conditions": conditions}))
    (run / "config.yaml").write_text(yaml.safe_dump({"tasks": None, **(settings or {})}))
    return run


@pytest.fixture
def runs(small_data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The first solves both inputs of eval0 and one of eval1, the second both of eval1 at its second attempt."""
    truths = {
        (name, i): grid for name, task in open_test_tasks(small_data).items() for i, (_, grid) in enumerate(task.test)
    }
    wrong = np.full((1, 1), 7, dtype=np.uint8)
    known = {key: grid for key, grid in truths.items() if grid is not None}
    first = {key: [wrong if key == ("eval1", 1) else grid] for key, grid in known.items()}
    second = {key: [wrong, grid] if key[0] == "eval1" else [wrong] for key, grid in known.items()}
    settings = {"lr": 1e-3, "checkpoint_path": "a", "arch": {"hidden_size": 8, "name": "trm"}}
    other = {"lr": 1e-3, "checkpoint_path": "b", "arch": {"hidden_size": 16, "name": "trm"}, "seed": 1}
    return (
        saved(tmp_path / "a" / "tune", small_data, first, settings),
        saved(tmp_path / "b" / "tune", small_data, second, other),
    )


def test_two_runs_are_set_side_by_side(runs: tuple[Path, Path], small_data: Path, tmp_path: Path) -> None:
    title, content = describe_comparison(*runs)
    size = " × ".join(str(n) for n in open_test_tasks(small_data)["eval1"].test[1][1].shape)
    assert title == "a/tune and b/tune" and [run["left_out"] for run in content["runs"]] == [0, 0]
    ranks = {task["id"]: [[run["rank"] for run in test["runs"]] for test in task["test"]] for task in content["tasks"]}
    assert ranks == {"eval0": [[1, None], [1, None]], "eval1": [[1, 2], [None, 2]]}
    assert content["differences"] == [["arch.hidden_size", "8", "16"], ["seed", "not a setting", "1"]]
    said = write_report(runs[0], None, None, runs[1])
    assert said.startswith(f"{runs[0] / 'compared_with_tune.html'}: ")
    script = """
        const tiles = (section) => [...section.querySelectorAll('.tile')].map((e) => e.textContent);
        const group = (section) => [section.querySelector('h2 span').textContent, tiles(section)];
        const groups = () => Object.fromEntries(all('#gallery section', group));
        const state = () => ({groups: groups(), verdict: one('#verdict').textContent});
        const found = {rows: all('#headline tr'), two: state(), settings: all('.settings tr')};
        one('[data-within="1"]').click(); found.one = state(); found.pressed = all('#within [aria-pressed=true]');
        one('[data-task="1"]').click();
        const shown = () => all('.test:last-of-type .answer', (e) => e.innerText);
        found.answers = shown();
        found.attempts = all('.test:last-of-type .attempts', (e) => e.children.length);
        one('.test:last-of-type .attempt').focus(); press('2'); found.pressed_2 = shown();
        return found;
    """
    found = find_in_browser((runs[0] / "compared_with_tune.html").read_text(), tmp_path, script)
    assert found["rows"][1].startswith("Aa/tune75.0 %3 of 475.0 %3 of 4")
    assert found["rows"][2].startswith("Bb/tune0.0 %0 of 450.0 %2 of 4")
    assert found["two"]["groups"] == {"only A solves": ["→eval0A 1  B –"], "only B solves": ["→eval1A –  B 2"]}
    assert "A alone solves 1 task, B alone 1, and both 0" in found["two"]["verdict"]
    assert "probability 1.00" in found["two"]["verdict"]
    assert found["one"]["groups"] == {"only A solves": ["→eval0A 1  B –"], "solved by neither": ["→eval1A –  B 2"]}
    assert found["pressed"] == ["1"] and found["settings"] == ["AB", "arch.hidden_size816", "seednot a setting1"]
    assert found["answers"] == [f"{run}: attempt 1, 1 vote\n\n1 × 1 instead of {size}" for run in "AB"]
    assert found["pressed_2"] == [found["answers"][0], "B: attempt 2, 1 vote\n\nright"], "A has one attempt"
    assert found["attempts"] == [1, 2]


def test_the_sign_test_is_that_of_the_binomial_distribution(runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = render_page(*describe_comparison(*runs))
    pairs = [(0, 1), (1, 9), (3, 3), (20, 40)]
    found = find_in_browser(page, tmp_path, f"return {json.dumps(pairs)}.map(([a, b]) => signTest(a, b));")
    assert found == pytest.approx([1.0, 0.021484375, 1.0, 0.01349], abs=1e-5)


def test_what_cannot_be_compared_is_named(runs: tuple[Path, Path], small_data: Path, tmp_path: Path) -> None:
    first, second = runs
    with pytest.raises(SettingError, match="named twice"):
        describe_comparison(first, first.parent / "tune")
    with pytest.raises(DataError, match="has no finished evaluation"):
        describe_comparison(first, tmp_path)
    (grid, _) = open_test_tasks(small_data)["eval0"].test[0]
    alone = [saved(tmp_path / name, small_data, {(name, 0): [grid]}, tasks=[name]) for name in ("eval0", "eval1")]
    with pytest.raises(DataError, match="no task that is the same"):
        describe_comparison(*alone)
    assert not (first / "compared_with_eval0.html").exists()
    _, content = describe_comparison(second, alone[1])
    assert [task["id"] for task in content["tasks"]] == ["eval1"]
    assert [run["left_out"] for run in content["runs"]] == [1, 0]


def test_a_saved_run_shows_the_tasks_that_it_evaluated(small_data: Path, tmp_path: Path) -> None:
    """Also where a fingerprint stands in the place of the setting, as earlier versions wrote it."""
    (grid, _) = open_test_tasks(small_data)["eval1"].test[0]
    answers = {("eval1", 0): [grid]}
    for name, settings, tasks, wanted in (
        ("setting", {}, ["eval1"], ["eval1"]),
        ("fingerprint", {"tasks": ["eval1"]}, "6813c312", ["eval1"]),
        ("all", {}, "6813c312", ["eval0", "eval1"]),
    ):
        _, content = read_saved_run(saved(tmp_path / name, small_data, answers, settings, tasks))
        assert [task["id"] for task in content["tasks"]] == wanted, name


def test_a_recipe_is_told_from_the_folder_of_a_run(tmp_path: Path) -> None:
    arch = {"name": "trm", "hidden_size": 128, "L_layers": 2, "H_cycles": 3, "L_cycles": 4, "halt_max_steps": 16}
    settings = {"arch": arch, "optimizer": "muon", "lr": 2e-3, "global_batch_size": 64, "load_checkpoint": "runs/x"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    starts = [{"command": ["old.py"]}, {"command": ["eval_arc_k10.py", "data_paths=[a b]"]}]
    (tmp_path / "versions.json").write_text(json.dumps({"starts": starts}))
    log = [
        {"step": 100, "examples_per_second": 64.0},
        {"step": 100, "ARC/tasks": 3},
        {"step": 300, "examples_per_second": 128.0},
        {"step": 400, "examples_per_second": 64.0},
    ]
    assert describe_recipe(tmp_path, 300, log) == {
        "network": "trm, width 128, 2 layers, H cycles 3, L cycles 4, at most 16 ACT steps",
        "training": "300 steps of 64 examples, muon at rate 0.002, from runs/x",
        "seconds": 100 + 100.0,
        "command": "python eval_arc_k10.py 'data_paths=[a b]'",
    }
    assert describe_recipe(tmp_path, 0, [])["training"] == "none, from runs/x"
    assert describe_recipe(tmp_path / "nothing", 300, log) == {}
    for text in ("[", "- 1", "a: !!python/object/apply:os.getcwd []"):
        (tmp_path / "config.yaml").write_text(text)
        (tmp_path / "versions.json").write_text(text)
        assert describe_recipe(tmp_path, 300, log) == {}, text


def test_places_are_no_difference_between_runs() -> None:
    first = {"checkpoint_path": "a", "tracker.name": "wandb", "lr": 1, "same": [1]}
    second = {"checkpoint_path": "b", "lr": 2, "same": [1], "new": None}
    assert list_differences(first, second) == [["lr", "1", "2"], ["new", "not a setting", "null"]]


def built(folder: Path, tasks: Sequence[Task], solutions: bool = True) -> Path:
    """A data set of these test tasks."""
    folder.mkdir()
    prefix = write_kaggle(folder, "evaluation2", list(tasks), solutions)
    words = ("--subsets", "evaluation2", "--test-set-name", "evaluation2", "--num-aug", "1", "--max-grid-size", "6")
    done = run_script("build_dataset.py", "--input-file-prefix", prefix, "--output-dir", str(folder / "set"), *words)
    assert done.returncode == 0, done.stderr
    return folder / "set"


def test_tasks_of_one_name_are_compared_if_their_grids_are_the_same(
    runs: tuple[Path, Path], small_data: Path, tmp_path: Path
) -> None:
    tasks = open_test_tasks(small_data)
    known = {(name, i): output for name, task in tasks.items() for i, (_, output) in enumerate(task.test)}
    right = {key: [grid] for key, grid in known.items() if grid is not None}
    new = np.full((2, 2), 3, dtype=np.uint8)
    (given, output), second = tasks["eval0"].test
    others = [
        replace(tasks["eval0"], test=((given, new), second)),
        replace(tasks["eval1"], test=((new, tasks["eval1"].test[0][1]), tasks["eval1"].test[1])),
    ]
    other = saved(tmp_path / "other", built(tmp_path / "others", others), right)
    with pytest.raises(DataError, match="no task that is the same"):
        describe_comparison(runs[0], other)
    hidden = saved(tmp_path / "hidden", built(tmp_path / "unknown", list(tasks.values()), solutions=False), right)
    _, content = describe_comparison(hidden, runs[1])
    ranks = {task["id"]: [[run["rank"] for run in test["runs"]] for test in task["test"]] for task in content["tasks"]}
    assert ranks == {"eval0": [[1, None], [1, None]], "eval1": [[1, 2], [1, 2]]}, "what one run knows counts for both"
    assert output is not None and content["tasks"][0]["test"][0]["truth"] == format_grid(output)
