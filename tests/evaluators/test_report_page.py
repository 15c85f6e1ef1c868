"""evaluators/report/assets: what a real browser makes of the page of a run or a data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pytest

from dataset.tasks import Task
from evaluators.report.page import render_page
from evaluators.report.task_values import describe_tasks
from evaluators.report.theme import LIGHT
from tests.builders.browser import find_in_browser
from tests.builders.grids import candidate_of, task_of

OWNED = "<script>document.title='owned'</script>"
PAIRS: list[tuple[Any, Any]] = [([[1]], [[2]])]
TASKS = {
    "missed": task_of("missed", PAIRS, [([[1]], [[3]])]),
    "second": task_of("second", PAIRS, [([[1]], [[4]])]),
    "two inputs": task_of("two inputs", PAIRS, [([[1]], [[2]]), ([[1]], [[3, 3]])]),
    "hidden": task_of("hidden", PAIRS, [([[1]], None)]),
    OWNED: task_of(OWNED, [], [([[1, 1]], [[2]])]),
    "": task_of("", PAIRS, [([[1]], [[5]])]),
}
KEYS = [(name, index) for name, task in TASKS.items() for index in range(len(task.test))]
VOTES = {key: [candidate_of([[2]], 3), candidate_of([[4]]), candidate_of([[5]])] for key in KEYS}
VOTES["hidden", 0] = [candidate_of([[2]], 9)]
STEPS = {("second", 0): ["", "1", "4"]}


def page_of(tasks: Mapping[str, Task] = TASKS, **more: Any) -> str:
    return render_page("a <b>run</b>", {"tasks": describe_tasks(tasks, VOTES, STEPS, 3), **more})


def test_the_first_view_is_a_gallery_of_all_tasks_by_state(tmp_path: Path) -> None:
    scores = {"ARC/pass@1_inputs": 0.25, "ARC/pass@1_inputs_95": [0.1, 0.4], "ARC/test_inputs": 8, "ARC/tasks": 6}
    recipe = {"network": "trm, width 8", "training": "7 steps", "seconds": 7800.0, "command": "python <b>x</b>"}
    script = """
        const found = {title: document.title, groups: {}, shown: shows('#gallery'), task: shows('#task')};
        const words = (e) => ['.name', '.tag'].map((s) => e.querySelector(s).textContent);
        for (const section of document.querySelectorAll('#gallery section')) {
            const tiles = [...section.querySelectorAll('.tile')];
            found.groups[section.querySelector('h2 span').textContent] = tiles.map(words);
        }
        found.cards = all('.card', (e) => [...e.children].map((line) => line.textContent));
        found.filters = all('#filters button');
        found.parts = all('#proportions span', (e) => +e.style.flexGrow);
        found.thumbs = all('.tile', (e) => e.querySelectorAll('canvas').length);
        found.recipe = all('#recipe dd');
        return found;
    """
    found = find_in_browser(page_of(scores=scores, recipe=recipe), tmp_path, script)
    assert found["title"] == "a <b>run</b>"  # text, not markup, and no task's script has run
    assert found["shown"] and not found["task"]
    assert found["groups"] == {
        "solved by attempt 1": [[OWNED, "✓ attempt 1"]],
        "solved by attempt 2": [["second", "✓ attempt 2"]],
        "solved within 10": [["(no name)", "attempt 3"]],
        "not solved": [["missed", "1 cell off"], ["two inputs", "1 of 2 inputs"]],
        "no known output": [["hidden", "100 % of votes"]],
    }
    assert found["filters"][0] == "all tasks6" and found["filters"][-1] == "no known output1"
    assert found["parts"] == [1, 1, 1, 2, 1] and set(found["thumbs"]) == {2}
    first, second, _, time = found["cards"]
    assert first == ["25.0 %", "pass@1: by the first attempt", "2 of 8 test inputs", "95 %: 10 to 40 %"]
    assert second[0] == "50.0 %" and second[2] == "3 of 6 test inputs", "counted where the scores do not say"
    assert time == ["2 h 10 min", "of training steps"] and found["recipe"] == ["trm, width 8", "7 steps"]


def test_the_gallery_is_filtered_sorted_and_searched(tmp_path: Path) -> None:
    script = """
        const names = () => all('.tile .name');
        const sorted = (by) => { enter('#sort', by, 'change'); return names(); };
        const search = (words) => enter('#search', words, 'input');
        const found = {};
        const button = one('[data-filter="none"]');
        button.focus(); button.click();
        found.missed = names();
        found.kept = document.activeElement.dataset.filter;
        found.pressed = button.getAttribute('aria-pressed');
        press('f'); found.next = one('#filters [aria-pressed=true]').dataset.filter;
        press('f'); found.all = names().length;
        for (const by of ['name', 'size', 'sureness', 'order']) found[by] = sorted(by);
        press('/'); found.searching = document.activeElement === one('#search');
        search('HID'); found.one = names();
        press('Enter'); found.focused = document.activeElement.textContent;
        search('nothing like it'); found.none = one('#gallery').textContent;
        return found;
    """
    found = find_in_browser(page_of(), tmp_path, script)
    assert found["missed"] == ["missed", "two inputs"]
    assert found["kept"] == "none" and found["pressed"] == "true", "a filter keeps the focus when it is chosen"
    assert found["next"] == "unknown" and found["all"] == 6
    assert found["order"] == [name or "(no name)" for name in TASKS]
    assert found["name"] == [name or "(no name)" for name in sorted(TASKS)]
    assert set(found["size"][-2:]) == {"two inputs", OWNED} and found["sureness"][0] == "hidden"
    assert found["searching"] and found["one"] == ["hidden"] and found["focused"].startswith("→hidden")
    assert found["none"] == "No task passes the filter."


def test_a_task_shows_attempts_steps_and_what_is_wrong(tmp_path: Path) -> None:
    script = """
        const found = {};
        one('[data-task="1"]').click();
        found.heading = one('#task h1').textContent;
        found.captions = all('#task .test figcaption');
        const shown = () => [one('.answer figcaption').textContent, one('.answer .verdict').textContent];
        found.first = shown();
        const canvas = one('.answer canvas'), context = canvas.getContext('2d');
        const pixel = (x, y) => [...context.getImageData(x * canvas.width, y * canvas.height, 1, 1).data].slice(0, 3);
        found.middle = pixel(.5, .5); found.corner = pixel(.2, .2);
        found.large = canvas.width;
        const words = (e) => [e.querySelector('.place').textContent, e.querySelector('.votes span').style.width];
        found.attempts = all('.attempt', words);
        document.querySelectorAll('.attempt')[1].click();
        found.second = shown(); found.framed = one('.answer .frame').className;
        found.pressed = all('.attempt', (e) => e.getAttribute('aria-pressed'));
        found.named = all('#task canvas, #task .empty', (e) => Boolean(e.getAttribute('role')));
        found.steps = all('.step');
        return found;
    """
    found = find_in_browser(page_of(), tmp_path, script)
    assert found["heading"] == "second"
    assert found["captions"] == ["input, 1 × 1", "attempt 1, 3 votes", "truth, 1 × 1"]
    assert found["first"] == ["attempt 1, 3 votes", "1 of 1 cell wrong"]
    assert found["corner"] == list(bytes.fromhex(LIGHT["c2"][1:])) and found["middle"] == [255, 255, 255], "marked"
    assert found["large"] > 60
    assert found["attempts"] == [["11 cell off", "60%"], ["2✓ right", "20%"], ["31 cell off", "20%"]]
    assert found["second"] == ["attempt 2, 1 vote", "right"] and "right" in found["framed"].split()
    assert found["pressed"] == ["false", "true", "false"] and all(found["named"])
    assert found["steps"] == ["no grid1", "2", "3"]


PLAY = """
    one('[data-task="1"]').click();
    const shown = () => one('.answer figcaption').textContent;
    const found = {label: one('.play').textContent};
    one('.play').click(); found.first = shown(); found.playing = one('.play').textContent;
    await wait(5000);
    found.last = shown(); found.label_after = one('.play').textContent;
    press('ArrowLeft'); found.back = shown();
    press('ArrowRight'); press('ArrowRight'); found.end = shown();
    press('3'); found.attempt = shown();
    press('p'); found.again = shown();
    press('j'); await wait(5000); found.moved = shown();
    return found;
"""


def test_the_refinement_is_played_and_stepped_through(tmp_path: Path) -> None:
    found = find_in_browser(page_of(), tmp_path, PLAY)
    assert found["label"] == found["label_after"] == "▶ play" and found["playing"] == "❚❚ pause"
    assert found["first"] == found["again"] == "after ACT step 1 of 3"
    assert found["last"] == found["end"] == "after ACT step 3 of 3" and found["back"] == "after ACT step 2 of 3"
    assert found["attempt"] == "attempt 3, 1 vote" and found["moved"] == "attempt 1, 3 votes"


def test_nothing_moves_by_itself_for_a_reader_who_wants_less_motion(tmp_path: Path) -> None:
    found = find_in_browser(page_of(), tmp_path, PLAY, "--force-prefers-reduced-motion")
    assert found["label"] == found["playing"] == "next step"
    assert found["first"] == found["last"] == "after ACT step 1 of 3"


def test_the_page_is_used_by_keyboard_alone(tmp_path: Path) -> None:
    script = """
        const heading = () => one('#task h1').textContent;
        const focused = () => document.activeElement.querySelector('.name')?.textContent;
        const found = {};
        enter('#sort', 'order', 'change');
        press('ArrowRight'); found.first = focused();
        press('ArrowRight'); press('ArrowRight'); press('ArrowLeft'); found.second = focused();
        document.activeElement.click();
        found.opened = heading(); found.hash = location.hash; found.gallery = shows('#gallery');
        press('j'); found.next = heading();
        press('k'); press('k'); found.before = heading();
        press('k'); found.still = heading();
        press('Escape'); found.closed = !shows('#task'); found.returned = focused();
        one('[data-task="3"]').click(); found.hidden = location.hash;
        history.back(); await wait(500);
        found.back = shows('#gallery');
        history.forward(); await wait(500);
        found.forward = heading();
        press('Escape');
        const tops = all('.tile', (e) => e.getBoundingClientRect().top);
        found.row = tops.filter((top) => top === tops[0]).length;
        one('.tile').focus(); press('ArrowDown');
        found.down = all('.tile', (e) => e === document.activeElement).indexOf(true);
        const parts = ['#filters button', '#search', '#sort', '.tile', 'summary'];
        found.reachable = parts.every((selector) => one(selector).tabIndex === 0);
        return found;
    """
    found = find_in_browser(page_of(conditions={"step": 7}), tmp_path, script, "--window-size=900,900")
    assert [found["first"], found["second"]] == ["missed", "second"]
    assert found["opened"] == "second" and found["hash"] == "#second" and not found["gallery"]
    assert found["next"] == "two inputs" and found["before"] == found["still"] == "missed"
    assert found["closed"] and found["returned"] == "missed" and found["hidden"] == "#hidden"
    assert found["back"] and found["forward"] == "hidden"
    assert found["row"] < len(TASKS) and found["down"] == found["row"]
    assert found["reachable"]


@pytest.mark.parametrize(("link", "opens"), [(quote(OWNED, safe=""), OWNED), ("@5", "(no name)"), ("%zz", None)])
def test_a_link_opens_its_task_and_a_broken_one_the_gallery(link: str, opens: str | None, tmp_path: Path) -> None:
    script = "return [shows('#gallery'), one('#task h1')?.textContent ?? null, all('.tile', (e) => e.hash)];"
    is_gallery, heading, links = find_in_browser(page_of(), tmp_path, script, link=link)
    assert heading == opens and is_gallery == (opens is None)
    assert opens is None or unquote(link) in [unquote(each[1:]) for each in links], "as the gallery's own links say"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_readable_in_both_themes(scheme: str, tmp_path: Path) -> None:
    """Contrast of at least 4.5 after WCAG 2.1, and the ten colours as they are."""
    script = """
        const colour = (s) => getComputedStyle(one(s)).color, words = {};
        const note = (...selectors) => { for (const s of selectors) words[s] = colour(s); };
        note('#title', '.card b', '.card span', '#behind', '#filters button', '.name');
        note(...['good', 'fair', 'near', 'faint', 'open'].map((kind) => `.tile.${kind} .tag`));
        const ground = getComputedStyle(document.body).backgroundColor;
        one('[data-task="0"]').click();
        note('#task h1', '.taskbar .tag', '.verdict', 'figcaption', '.attempt', '.attempt .place span', 'h3', '.keys');
        const canvas = one('#task canvas'), context = canvas.getContext('2d');
        const cell = (canvas.width - 1) / 10;
        const middle = (c) => context.getImageData((c + .5) * cell, cell / 2, 1, 1).data;
        return {ground, words, drawn: Array.from({length: 10}, (_, c) => [...middle(c)].slice(0, 3))};
    """
    ten = task_of("missed", [([list(range(10))], [[0]])], [([[1]], [[3, 3]])])
    page = page_of({**TASKS, "missed": ten}, scores={"ARC/tasks": 6})
    setting = f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}"
    found = find_in_browser(page, tmp_path, script, setting)

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


def test_grids_grow_with_the_window_and_a_narrow_one_is_not_scrolled_sideways(tmp_path: Path) -> None:
    wide = np.arange(900).reshape(30, 30) % 10
    tasks = {"wide": task_of("wide" * 30, [(wide, wide)] * 3, [(wide, wide)])}
    votes = {("wide", 0): [candidate_of(wide), candidate_of([[1]])]}
    steps = {("wide", 0): ["/".join("".join(map(str, row)) for row in wide.tolist())] * 16}
    page = render_page("n" * 90, {"tasks": describe_tasks(tasks, votes, steps, 2), "scores": {"ARC/tasks": 1}})
    script = """
        const first = document.documentElement.scrollWidth;
        one('.tile').click();
        const grids = all('.test > .row canvas', (e) => e.getBoundingClientRect().width);
        return [innerWidth, first, document.documentElement.scrollWidth, Math.min(...grids)];
    """
    smallest = []
    for size in ("420,900", "1280,900", "1900,1100"):
        inner, *widths, grid = find_in_browser(page, tmp_path, script, f"--window-size={size}")
        assert max(widths) <= inner, size
        smallest.append(grid)
    assert smallest[0] > 270 and smallest[1] > 350 and smallest[2] > 500, smallest


def test_pages_without_outputs_attempts_or_tasks(tmp_path: Path) -> None:
    script = """
        const found = {cards: all('.card b'), filters: all('#filters button').length, bar: shows('#proportions')};
        found.gallery = one('#gallery').textContent;
        one('.tile')?.click();
        for (const key of ['j', 'p', '1', 'ArrowRight']) press(key);
        return {...found, task: one('#task').textContent};
    """
    hidden = find_in_browser(page_of({"hidden": TASKS["hidden"]}), tmp_path, script)
    assert hidden["cards"] == ["1", "100 %"] and not hidden["filters"] and not hidden["bar"]
    assert "no known output" in hidden["task"] and "ACT step" not in hidden["task"] and "truth" not in hidden["task"]
    tasks = describe_tasks({"missed": TASKS["missed"]}, {}, {}, 2)
    silent = find_in_browser(render_page("silent", {"tasks": tasks}), tmp_path, script)
    assert silent["cards"] == ["0.0 %", "0.0 %", "0.0 %"] and "no answer" in silent["gallery"]
    assert "the input itself is submitted" in silent["task"]
    canvases = [{"id": "a|||t1", "train": [{"input": "12e/ee./...", "output": "3e./e../..."}], "test": []}]
    data = find_in_browser(render_page("data", {"tasks": canvases}), tmp_path, script)
    assert data["cards"] == ["1"] and "a|||t1" in data["gallery"] and "demonstration 1" in data["task"]
    assert find_in_browser(render_page("none", {"tasks": []}), tmp_path, script)["gallery"] == "There is no task."
