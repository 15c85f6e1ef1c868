"""evaluators/report/: what the page of a run or a data set contains.  test_report_page.py opens it in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators.evaluation import Evaluation
from evaluators.report.page import render_page
from evaluators.report.saved_run import read_saved_run
from evaluators.report.task_values import describe_tasks, format_grid
from tests.builders.browser import find_in_browser
from tests.builders.grids import candidate_of, task_of
from tests.builders.states import STEPS, TINY, predicting_state
from tests.conftest import SMALL, run_script
from training.config import EvalConfig
from utils.metrics_log import MetricsLog

OWNED = "<script>document.title='owned'</script>"
TASKS = {
    "solved": task_of("solved", [([[1]], [[2]])], [([[1]], [[2]])]),
    "cells": task_of("cells", [([[1]], [[2]])], [([[1]], [[3]])]),
    "shape": task_of("shape", [([[1]], [[2]])], [([[1]], [[3, 3]])]),
    "hidden": task_of("hidden", [([[1]], [[2]])], [([[1]], None)]),
    OWNED: task_of(OWNED, [], [([[1]], [[2]])]),
}
VOTES = {(name, 0): [candidate_of([[2]], 3), candidate_of([[4]])] for name in TASKS}


def page_of() -> str:
    tasks = describe_tasks(TASKS, VOTES, {("cells", 0): ["", "1", "2"]}, attempts=2)
    content = {"tasks": tasks, "scores": {"ARC/pass@1_inputs": 0.25, "ARC/tasks": 5}, "conditions": {"step": 7}}
    return render_page("a <b>run</b>", {**content, "curves": {"lm_loss": [[1, 2.0], [2, 1.0]]}})


def data_in(page: str) -> Any:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_statuses_say_how_near_the_attempts_come() -> None:
    tasks = {task["id"]: task for task in data_in(page_of())["tasks"]}
    found = {name: task["test"][0]["status"] for name, task in tasks.items()}
    assert found["solved"] == "solved" and found["cells"] == "wrong cells"
    assert found["shape"] == "wrong shape" and found["hidden"] == "unknown"
    assert tasks["cells"]["test"][0]["steps"] == ["", "1", "2"]
    best = tasks["solved"]["test"][0]["attempts"][0]
    assert [tasks[name]["test"][0]["rank"] for name in ("solved", "cells", "hidden")] == [1, None, None]
    assert best == {"grid": "2", "votes": 3, "halt": 0.5, "caption": "1: 3 votes, halting 50%"}
    assert tasks["solved"]["test"][0]["summary"] == "The best 2 of 2 candidates by 4 votes"


def test_nothing_of_the_data_can_become_markup() -> None:
    page = page_of()
    assert page.count("<script") == 2
    assert "<script>document" not in page and "<b>run" not in page
    assert data_in(page)["tasks"][4]["id"] == "<script>document.title='owned'</script>"


def test_120_large_tasks_fit_five_megabytes() -> None:
    """Every grid is 30 x 30 and another one; there are ten attempts and sixteen steps."""
    rng = np.random.default_rng(0)

    def grid() -> Any:
        return rng.integers(0, 10, (30, 30), dtype=np.uint8)

    names = [f"{i:08x}" for i in range(120)]
    tasks = {name: task_of(name, [(grid(), grid())] * 3, [(grid(), grid())]) for name in names}
    votes = {(name, 0): [candidate_of(grid()) for _ in range(10)] for name in tasks}
    traces = {(name, 0): [format_grid(grid()) for _ in range(16)] for name in tasks}
    page = render_page("large", {"tasks": describe_tasks(tasks, votes, traces, 10)})
    assert 3.5e6 < len(page.encode()) < 5e6


def test_a_truth_that_was_not_submitted_is_told() -> None:
    votes = {("cells", 0): [candidate_of([[2]]), candidate_of([[4]]), candidate_of([[3]])]}
    (task,) = describe_tasks({"cells": TASKS["cells"]}, votes, {}, attempts=2)
    assert task["test"][0]["status"] == "wrong cells" and task["test"][0]["rank"] == 3
    assert task["test"][0]["summary"] == "The best 2 of 3 candidates by 3 votes; the truth is candidate 3"


def test_the_page_made_from_a_result_is_the_page_made_from_its_files(small_data: Path, tmp_path: Path) -> None:
    config = EvalConfig.model_validate(
        {"arch": TINY, "data_paths": [str(small_data)], "epochs": 1, "eval_interval": None, "global_batch_size": 8}
    )
    result = Evaluation(config, tmp_path, {"data": ["a"], "puzzles": "b"}).run(predicting_state(small_data))
    assert result is not None
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        for step in (0, 5):
            log.write(step, result.metrics)
    assert result.write_page(tmp_path) == tmp_path / "report.html"
    title, content = read_saved_run(tmp_path)
    assert data_in((tmp_path / "report.html").read_text()) == {"title": title, **content}
    assert len(content["tasks"][0]["test"][0]["steps"]) == STEPS
    assert [step for step, _ in content["curves"]["ARC/pass@1_inputs"]] == [0, 5], "the log's points, each once"


@pytest.mark.slow
def test_a_run_leaves_its_page(small_data: Path, tmp_path: Path) -> None:
    done = run_script(
        *(
            "eval_arc_k10.py",
            f"data_paths=[{small_data}]",
            f"checkpoint_path={tmp_path}",
            "epochs=4",
            "eval_interval=4",
        ),
        *("finetune_on=test_tasks", "puzzle_rows=zero", *SMALL),
    )
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    page = (tmp_path / "report.html").read_text()
    content = data_in(page)
    assert [task["id"] for task in content["tasks"]] == ["eval0", "eval1"]
    assert len(content["tasks"][0]["test"][0]["steps"]) == 3
    assert content["scores"]["ARC/test_inputs"] == 4 and content["curves"]["lm_loss"]
    assert find_in_browser(page, tmp_path, "one('.tile').click(); return all('#task canvas').length;") >= 6
    again = run_script("-m", "evaluators.report", str(tmp_path), "--out", str(tmp_path / "again.html"))
    assert again.returncode == 0, again.stderr
    assert data_in((tmp_path / "again.html").read_text()) == content
    shown = run_script("-m", "evaluators.report", "--data", str(small_data), "--out", str(tmp_path / "data.html"))
    assert shown.returncode == 0, shown.stderr
    puzzles = data_in((tmp_path / "data.html").read_text())["tasks"]
    assert len(puzzles) == 8 * 4 and "e" in puzzles[0]["train"][0]["input"]
    nothing = run_script("-m", "evaluators.report", str(tmp_path / "nowhere"))
    assert nothing.returncode == 2 and "has no finished evaluation" in nothing.stderr
