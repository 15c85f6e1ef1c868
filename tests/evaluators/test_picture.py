"""evaluators/picture/: the PNG of a task shows the values of its page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.tasks import Task
from evaluators.picture import painter, solved
from evaluators.picture.solved import choose_solved, draw_solved
from evaluators.report.data_set import describe_puzzle
from evaluators.report.task_values import describe_tasks, find_differences, format_grid
from evaluators.report.theme import LIGHT
from evaluators.voting import Candidate
from tests.conftest import run_script
from utils.errors import InputError

PALETTE = {name: tuple(bytes.fromhex(value[1:])) for name, value in LIGHT.items()}
OFFICIAL = ["000000", "0074d9", "ff4136", "2ecc40", "ffdc00", "aaaaaa", "f012be", "ff851b", "7fdbff", "870c25"]


def described(attempts: list[list[list[int]]], truth: list[list[int]] | None = None) -> dict[str, Any]:
    grids = [np.array(grid, np.uint8) for grid in ([[1, 2], [3, 4]], [[7]], [[5, 5]])]
    task = Task(
        "name", "", ((grids[0], grids[1]),), ((grids[2], None if truth is None else np.array(truth, np.uint8)),)
    )
    votes = [Candidate(np.array(grid, np.uint8), 3 - n, 0.5, 1.0) for n, grid in enumerate(attempts)]
    (found,) = describe_tasks({"name": task}, {("name", 0): votes}, {}, attempts=2)
    return found


def drawn(task: dict[str, Any], folder: Path) -> np.ndarray:
    painter.draw_task(task, folder / "task.png")
    with Image.open(folder / "task.png") as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


def places(image: np.ndarray, colour: str) -> int:
    return int((image == PALETTE[colour]).all(-1).sum())


def test_the_ten_colours_are_the_official_ones() -> None:
    assert [LIGHT[f"c{colour}"] for colour in range(10)] == [f"#{value}" for value in OFFICIAL]


def test_every_grid_is_drawn_in_its_colours(tmp_path: Path) -> None:
    image = drawn(described([[[8, 8], [8, 9]]]), tmp_path)
    cell = (painter.LARGEST_CELL - 1) ** 2
    counts = {colour: places(image, f"c{colour}") for colour in range(1, 10)}
    assert counts == {1: cell, 2: cell, 3: cell, 4: cell, 5: 2 * cell, 6: 0, 7: cell, 8: 3 * cell, 9: cell}


def test_differences_are_marked_and_the_right_answer_framed(tmp_path: Path) -> None:
    truth = [[8, 8], [8, 9]]
    right, wrong = drawn(described([truth], truth), tmp_path), drawn(described([[[8, 8], [8, 6]]], truth), tmp_path)
    other = drawn(described([[[8, 8]]], truth), tmp_path)
    # the frame, and the word above it
    assert places(right, "good") > 2 * places(wrong, "good") + 500
    assert 0 < places(wrong, "c6") < (painter.LARGEST_CELL - 1) ** 2, "the mark covers a part of its cell"
    assert places(right, "c9") == 2 * places(wrong, "c9")
    assert places(other, "c8") == (3 + 2) * (painter.LARGEST_CELL - 1) ** 2, "shapes differ: nothing is marked"


def test_votes_are_bars(tmp_path: Path) -> None:
    """Of five votes three and two: the bars have these fractions of the width of a whole one."""
    image = drawn(described([[[8]], [[9]]]), tmp_path)
    accent = (image == PALETTE["accent"]).all(-1)
    assert set(accent.sum(0)) == {0, painter.BAR[0]}
    edges = np.flatnonzero(np.diff(accent.any(0).astype(int)))  # where a bar begins or ends
    assert (edges[1::2] - edges[::2]).tolist() == [painter.BAR[1] * 3 // 5, painter.BAR[1] * 2 // 5]


def test_differences_are_those_of_the_text() -> None:
    assert find_differences("12/34", "12/35") == {(1, 1)}
    assert find_differences("12/34", "12/34") == set()
    assert find_differences("12/34", "1234") == set() == find_differences("", "1") == find_differences("1", None)


def test_without_an_answer_the_picture_says_so(tmp_path: Path) -> None:
    assert described([])["test"][0]["summary"].endswith("the input itself is submitted")
    assert len(drawn(described([]), tmp_path)) > 100


def test_a_hostile_name_is_only_drawn(tmp_path: Path) -> None:
    for name in ("a\nb", "\ud800", "../" * 5000, ""):
        assert drawn(described([]) | {"id": name}, tmp_path).shape[1] == painter.WIDTH


def test_a_missing_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"pip install -e \"\.\[pictures\]\""):
        painter.draw_task(described([]), tmp_path / "task.png")
    assert not list(tmp_path.iterdir())


def test_a_puzzle_of_a_data_set(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "puzzle.png"
    done = run_script("-m", "evaluators.picture", str(small_data), "train0", "--out", str(out))
    assert done.returncode == 0, done.stderr
    with Image.open(out) as image:
        assert image.size[0] == painter.WIDTH
    task = describe_puzzle(small_data, "train0")
    assert task["id"] == "train0" and len(task["train"]) == 4 and "e" in task["train"][0]["input"]
    for name in ("nowhere", "train0|||t9|||0123456789"):
        done = run_script("-m", "evaluators.picture", str(small_data), name, "--out", str(tmp_path / "no.png"))
        assert done.returncode == 2 and done.stderr.startswith("error: ") and name in done.stderr
    assert not (tmp_path / "no.png").exists()


def solved_task(
    name: str, truth: list[list[int]], steps: list[list[list[int]]], attempt: list[list[int]]
) -> dict[str, Any]:
    task = {**described([attempt], truth), "id": name}
    task["test"][0]["steps"] = [format_grid(np.array(grid)) for grid in steps]
    return task


def test_solved_puzzles_that_came_to_their_answer_are_shown_first(tmp_path: Path) -> None:
    right, wrong = [[1, 2], [3, 4]], [[1, 2], [3, 3]]
    tasks = [
        solved_task("missed", right, [wrong, wrong], wrong),
        solved_task("at once", right, [right, right], right),
        solved_task("on the way", right, [wrong, right], right),
        solved_task("by votes", right, [wrong, wrong], right),
    ]
    assert [each.task["id"] for each in choose_solved(tasks, 2)] == ["on the way", "at once"]
    draw_solved(choose_solved(tasks, 3), tmp_path / "solved.png")
    with Image.open(tmp_path / "solved.png") as image:
        pixels = np.array(image.convert("RGB"))
    frame = (2 * solved.CELL + 1 + 16) ** 2 - (2 * solved.CELL + 1 + 8) ** 2
    assert places(pixels, "good") == frame * (2 + 3 + 1), "each right step and answer is framed"
    assert places(pixels, "c2") == (solved.CELL - 1) ** 2 * 3 * 4, "a demonstration, two steps, an answer"
