"""evaluators/report/page.py: what the page holds, and what a real browser makes of it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from dataset.tasks import Task
from evaluators.evaluation import Evaluation
from evaluators.report.page import render_page
from evaluators.report.saved_run import read_saved_run
from evaluators.report.task_values import describe_tasks, format_grid
from evaluators.report.theme import LIGHT
from evaluators.voting import Candidate
from tests.builders.states import STEPS, TINY, predicting_state
from tests.conftest import SMALL, run_script
from training.config import EvalConfig
from utils.metrics_log import MetricsLog

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


def candidate(grid: list[list[int]], votes: int = 1) -> Candidate:
    return Candidate(np.array(grid, dtype=np.uint8), votes, 0.5, 0.5 * votes)


def grid_of(cells: Any) -> np.ndarray:
    return np.array(cells, dtype=np.uint8)


def task_of(name: str, train: list[tuple[Any, Any]], test: list[tuple[Any, Any]]) -> Task:
    """A task of these pairs of grids; the output of a test pair may be None."""
    pairs = [[(grid_of(a), None if b is None else grid_of(b)) for a, b in side] for side in (train, test)]
    return Task(name, "", tuple(pairs[0]), tuple(pairs[1]))


OWNED = "<script>document.title='owned'</script>"
TASKS = {
    "solved": task_of("solved", [([[1]], [[2]])], [([[1]], [[2]])]),
    "cells": task_of("cells", [([[1]], [[2]])], [([[1]], [[3]])]),
    "shape": task_of("shape", [([[1]], [[2]])], [([[1]], [[3, 3]])]),
    "hidden": task_of("hidden", [([[1]], [[2]])], [([[1]], None)]),
    OWNED: task_of(OWNED, [], [([[1]], [[2]])]),
}
VOTES = {(name, 0): [candidate([[2]], 3), candidate([[4]])] for name in TASKS}


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
    assert best == {"grid": "2", "votes": 3, "halt": 0.5, "caption": "1: 3 votes, halting 50%"}
    assert tasks["solved"]["test"][0]["summary"] == "The best 2 of 2 candidates by 4 votes"


def test_nothing_of_the_data_can_become_markup() -> None:
    page = page_of()
    assert page.count("<script") == 2
    assert "<script>document" not in page and "<b>run" not in page
    assert data_in(page)["tasks"][4]["id"] == "<script>document.title='owned'</script>"


def test_120_large_tasks_fit_five_megabytes() -> None:
    """Every grid 30 x 30, ten attempts, sixteen steps."""
    rng = np.random.default_rng(0)
    grid = rng.integers(0, 10, (30, 30)).tolist()
    names = [f"{i:08x}" for i in range(120)]
    tasks = {name: task_of(name, [(grid, grid)] * 3, [(grid, grid)]) for name in names}
    votes = {(name, 0): [candidate(grid) for _ in range(10)] for name in tasks}
    traces = {(name, 0): [format_grid(grid_of(grid))] * 16 for name in tasks}
    page = render_page("large", {"tasks": describe_tasks(tasks, votes, traces, 10)})
    assert len(page.encode()) < 5e6


def in_browser(page: str, folder: Path, script: str = "", *more: str, link: str = "") -> str:
    """The page's DOM after a script of ours has run in it, its result in the attribute data-found."""
    if BROWSER is None:
        pytest.skip("no Chromium: apt install chromium")
    probe = f"<script>document.body.dataset.found = JSON.stringify((() => {{ {script} }})() ?? null);</script>"
    path = folder / "page.html"
    path.write_text(page.replace("</body>", probe + "</body>"))
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1280,900",
            *more,
            "--dump-dom",
            f"{path.as_uri()}#{link}" if link else path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def found_in(dom: str) -> Any:
    match = re.search(r'data-found="(.*?)"', dom, re.DOTALL)
    assert match is not None, dom[-2000:]
    return json.loads(html.unescape(match[1]))


def test_a_browser_shows_filters_and_tasks(tmp_path: Path) -> None:
    script = """
        const names = () => [...document.querySelectorAll('#list li span:first-child')].map((e) => e.textContent);
        const press = (key) => document.dispatchEvent(new KeyboardEvent('keydown', {key}));
        const heading = () => document.querySelector('#task h2').textContent;
        const result = {all: names(), first: heading(), title: document.title};
        document.querySelector('[data-filter="wrong cells"]').click();
        result.cells = names();
        result.shown = heading();
        result.steps = [...document.querySelectorAll('#task figcaption')].map((e) => e.textContent);
        const best = [...document.querySelectorAll('#task figure')].find((f) => f.textContent.startsWith('1:'));
        const canvas = best.querySelector('canvas');
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        const colour = (_, i) => pixels.slice(4 * i, 4 * i + 3).join();
        result.colours = [...new Set(Array.from({length: pixels.length / 4}, colour))];
        document.querySelector('[data-filter="all"]').click();
        press('ArrowDown'); press('j'); press('k');
        result.moved = heading();
        const search = document.querySelector('#search');
        search.value = 'hid'; search.dispatchEvent(new Event('input'));
        result.found = names();
        result.score = document.querySelector('#scores b').textContent;
        return result;
    """
    found = found_in(in_browser(page_of(), tmp_path, script))
    assert found["all"] == list(TASKS) and found["first"] == "solved"
    assert found["title"] == "a <b>run</b>"  # text, not markup, and no task's script has run
    assert found["cells"] == ["cells"] and found["shown"] == "cells"
    assert "step 3" in found["steps"] and "truth" in found["steps"]
    assert "46,204,64" not in found["colours"] and "255,65,54" in found["colours"]  # colour 2 is red
    assert "255,255,255" in found["colours"]  # and marked as wrong
    assert found["moved"] == "shape" or found["moved"] == "cells"
    assert found["found"] == ["hidden"]
    assert found["score"] == "25.0 %"


def test_a_truth_that_was_not_submitted_is_told() -> None:
    votes = {("cells", 0): [candidate([[2]]), candidate([[4]]), candidate([[3]])]}
    (task,) = describe_tasks({"cells": TASKS["cells"]}, votes, {}, attempts=2)
    assert task["test"][0]["status"] == "wrong cells"
    assert task["test"][0]["summary"] == "The best 2 of 3 candidates by 3 votes; the truth is candidate 3"


def test_the_page_is_usable_by_keyboard_alone(tmp_path: Path) -> None:
    script = """
        const event = (key) => new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true});
        const key = (name, on = document) => on.dispatchEvent(event(name));
        const heading = () => document.querySelector('#task h2').textContent;
        const list = document.querySelector('#list'), search = document.querySelector('#search');
        const active = () => document.getElementById(list.getAttribute('aria-activedescendant')).textContent;
        const result = {};
        key('End'); result.last = heading();
        key('Home'); result.first = heading();
        key('j'); key('ArrowDown'); result.third = heading(); result.active = active(); result.hash = location.hash;
        const button = document.querySelector('[data-filter="solved"]');
        button.focus(); button.click();
        result.kept = document.activeElement.dataset.filter;
        result.pressed = button.getAttribute('aria-pressed');
        key('f'); result.next = document.querySelector('#filters [aria-pressed=true]').dataset.filter;
        key('/'); result.searching = document.activeElement === search;
        search.value = 'nothing like it'; search.dispatchEvent(new Event('input'));
        result.none = document.querySelector('#task').textContent;
        key('ArrowDown'); result.still = document.querySelector('#task').textContent;
        key('Enter', search); result.listed = document.activeElement === list;
        const reachable = (s) => document.querySelector(s).tabIndex === 0;
        result.reachable = ['button', 'input', 'summary', '#list'].every(reachable);
        result.named = [...document.querySelectorAll('#task canvas')].every((c) => c.getAttribute('aria-label'));
        return result;
    """
    found = found_in(in_browser(page_of(), tmp_path, script))
    names = list(TASKS)
    assert [found["first"], found["third"], found["last"]] == [names[0], names[2], names[-1]]
    assert found["active"].startswith(found["third"]) and found["hash"] == "#shape"
    assert found["kept"] == "solved" and found["pressed"] == "true", "a filter keeps the focus when it is chosen"
    assert found["next"] == "wrong shape"
    assert found["searching"] and found["listed"] and found["reachable"] and found["named"]
    assert found["none"] == found["still"] == "No task passes the filter."


def test_a_link_opens_its_task_and_a_broken_one_the_first(tmp_path: Path) -> None:
    script = "return document.querySelector('#task h2').textContent;"
    for name in TASKS:
        assert found_in(in_browser(page_of(), tmp_path, script, link=quote(name, safe=""))) == name
    assert found_in(in_browser(page_of(), tmp_path, script, link="%zz")) == "solved"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_readable_in_both_themes(scheme: str, tmp_path: Path) -> None:
    """Contrast of at least 4.5 after WCAG 2.1, and the ten colours as they are."""
    script = """
        const colour = (s) => getComputedStyle(document.querySelector(s)).color;
        const ground = getComputedStyle(document.body).backgroundColor;
        const tags = ['solved', 'cells', 'shape'].map((kind) => `#list .${kind}`);
        const words = ['h1', 'h2', '#behind', '#list li span', ...tags, 'figcaption'];
        const canvas = document.querySelector('#task canvas'), context = canvas.getContext('2d');
        const cell = (canvas.width - 1) / 10;
        const middle = (c) => context.getImageData((c + .5) * cell, cell / 2, 1, 1).data;
        return {ground, words: Object.fromEntries(words.map((s) => [s, colour(s)])),
                drawn: Array.from({length: 10}, (_, c) => [...middle(c)].slice(0, 3))};
    """
    tasks = {"ten": task_of("ten", [([list(range(10))], [[0]])], [([[1]], [[2]])]), **TASKS}
    content = {"tasks": describe_tasks(tasks, VOTES, {}, 2), "scores": {"ARC/tasks": 6}}
    setting = f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}"
    found = found_in(in_browser(render_page("themes", content), tmp_path, script, setting))

    def luminance(text: str) -> float:
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in channels(text)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def channels(text: str) -> list[float]:
        return [int(value) / 255 for value in re.findall(r"\d+", text)[:3]]

    ground = luminance(found["ground"])
    assert (ground < 0.2) == (scheme == "dark")
    for where, colour in found["words"].items():
        light, dark = sorted((luminance(colour), ground), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (where, colour)
    assert found["drawn"] == [list(bytes.fromhex(LIGHT[f"c{c}"][1:])) for c in range(10)]


def test_a_narrow_window_is_not_scrolled_sideways(tmp_path: Path) -> None:
    wide = np.arange(900).reshape(30, 30) % 10
    tasks = {"wide": task_of("wide", [(wide, wide)], [(wide, wide)])}
    content = {"tasks": describe_tasks(tasks, {("wide", 0): [candidate(wide.tolist())]}, {}, 2)}
    script = "return [innerWidth, document.documentElement.scrollWidth];"
    inner, content_width = found_in(in_browser(render_page("n", content), tmp_path, script, "--window-size=420,900"))
    assert inner <= 500 and content_width <= inner


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
    rows = found_in(in_browser(page, tmp_path, "return document.querySelectorAll('#task canvas').length;"))
    assert rows >= 6
    again = run_script("-m", "evaluators.report", str(tmp_path), "--out", str(tmp_path / "again.html"))
    assert again.returncode == 0, again.stderr
    assert data_in((tmp_path / "again.html").read_text()) == content
    shown = run_script("-m", "evaluators.report", "--data", str(small_data), "--out", str(tmp_path / "data.html"))
    assert shown.returncode == 0, shown.stderr
    puzzles = data_in((tmp_path / "data.html").read_text())["tasks"]
    assert len(puzzles) == 8 * 4 and "e" in puzzles[0]["train"][0]["input"]
    nothing = run_script("-m", "evaluators.report", str(tmp_path / "nowhere"))
    assert nothing.returncode == 2 and "has no evaluation" in nothing.stderr
