"""docs/figures: the committed figures are what the code says, and all of them can be read, in light and dark."""

from __future__ import annotations

import graphlib
import itertools
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from dataset.augmentation import IDENTITY_ROW, Augmentation
from dataset.encoding import COLOUR_0
from docs.figures.__main__ import COMMAND, FOLDER, FROM_CODE
from docs.figures.drawing.style import DARK, SHEET, WIDTH
from docs.figures.drawing.svg import text_width
from docs.figures.structure.data_path import PATH
from docs.figures.structure.imports import FOLDERS, Layer, direct_imports, read_layers, rows_of_layers
from docs.figures.subjects import solved
from docs.figures.subjects.augmentations import PUZZLE, choose_augmentations, encode_pair, read_pair
from docs.figures.subjects.checkpoints import PARTIAL, save_tiny_state
from docs.figures.subjects.curves import curve_of, find_recipes
from docs.figures.subjects.recursion import draw_recursion, record_updates
from docs.figures.subjects.slots import simulate_slots
from docs.figures.subjects.solved import draw_solved
from evaluators.picture.solved import Solved
from models.arch import ArchConfig
from tests.builders.programs import run_script
from tests.conftest import ROOT
from training.checkpoint import RECORD
from utils import files
from utils.errors import DataError


def words_of(figure: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(figure).iter("{http://www.w3.org/2000/svg}text")]


def test_the_drawing_names_every_module_and_stage() -> None:
    words = " ".join(words_of((FOLDER / "architecture.svg").read_text(encoding="utf-8"))).replace("·", " ").split()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            assert path.stem in words or path.stem.startswith("__"), f"{path} is not in the drawing"
    for script, stages in PATH.items():
        assert script in words and all(name in words for stage in stages for name in stage.name.split())


def test_layers_are_read_from_imports(tmp_path: Path) -> None:
    for folder in FOLDERS:
        (tmp_path / folder / "part").mkdir(parents=True)
        (tmp_path / folder / "__init__.py").write_text(f'"""The {folder}.  More of them."""\n')
    (tmp_path / "run.py").write_text("from evaluators.part.a import f\n")
    (tmp_path / "evaluators" / "part" / "a.py").write_text("def f():\n    import training.loop, utils\n")
    (tmp_path / "training" / "loop.py").write_text(
        "import torch\nfrom models import act\nfrom dataset.part.x import y\n"
    )
    (tmp_path / "dataset" / "tasks.py").write_text("from utils.files import z\n")
    layers = read_layers(tmp_path)
    assert layers["evaluators"].parts == {"part": ["a"]} and layers["training"].files == ["loop"]
    assert layers["training"].with_torch == {""} and layers["evaluators"].sentence == "The evaluators."
    arrows = {("scripts", "evaluators"), ("evaluators", "training"), ("training", "models"), ("training", "dataset")}
    assert direct_imports(layers) == arrows | {("dataset", "utils")}, "what other arrows imply is left out"
    assert rows_of_layers(layers) == [["scripts"], ["evaluators"], ["training"], ["dataset", "models"], ["utils"]]


def test_layers_that_import_each_other_are_refused() -> None:
    circle = {"a": Layer("a", "", imports={"b"}), "b": Layer("b", "", imports={"a"})}
    with pytest.raises(graphlib.CycleError):
        direct_imports(circle)


SVG = "{http://www.w3.org/2000/svg}"


def boxes_of(figure: str) -> list[tuple[str, float, float, float, float]]:
    """Returns (words, left, top, right, bottom) of each line of text, as wide as in a wide font."""
    found = []
    for element in ElementTree.fromstring(figure).iter(f"{SVG}text"):
        size, words = float(element.attrib["font-size"]), element.text or ""
        width = text_width(words, size, "font-weight" in element.attrib)
        left = float(element.attrib["x"]) - (width / 2 if element.get("text-anchor") == "middle" else 0)
        baseline = float(element.attrib["y"])
        found.append((words, left, baseline - 0.75 * size, left + width, baseline + 0.2 * size))
    return found


def assert_readable(figure: str, is_dense: bool = False) -> None:
    """Asserts what can go wrong with a figure: its size, text out of the sheet or on other text, faint colours.

    Args:
        is_dense: letters may be smaller.
    """
    root = ElementTree.fromstring(figure)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    boxes = boxes_of(figure)
    assert len(figure.encode()) < 60_000 and boxes and width == WIDTH
    for words, left, top, right, bottom in boxes:
        assert left >= 0 and right <= width and top >= 0 and bottom <= height, f"{words!r} is not on the sheet"
    for a, b in itertools.combinations(boxes, 2):
        is_apart = a[3] <= b[1] or b[3] <= a[1] or a[4] <= b[2] or b[4] <= a[2]
        assert is_apart, f"{a[0]!r} lies on {b[0]!r}"
    for element in root.iter(f"{SVG}text"):
        assert float(element.attrib["font-size"]) >= (8 if is_dense else 12), (
            f"{element.text!r} is too small at the width of a README"
        )
        light = element.attrib["fill"]
        dark = re.search(rf'\[fill="{light}"\]{{fill:(#\w+)}}', figure)
        assert dark, f"{element.text!r} keeps {light} on a dark page"
        assert contrast(light, SHEET) > 3 < contrast(dark[1], DARK[SHEET]), f"{element.text!r} is too faint"


def contrast(a: str, b: str) -> float:
    """Returns the ratio of relative luminances (WCAG 2)."""
    bright = []
    for color in (a, b):
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (byte / 255 for byte in bytes.fromhex(color[1:]))
        ]
        bright.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(bright) / min(bright)


def grid_text(cells: list[list[int]]) -> str:
    return "/".join("".join(map(str, row)) for row in cells)


def solved_puzzle(side: int, steps: int, pairs: int = 3) -> Solved:
    """A puzzle with square grids whose answer loses a wrong cell at each step."""
    rng = np.random.default_rng(side)
    truth = rng.integers(0, 9, (side, side))
    if side == 30:  # large grids of ARC have areas of one colour
        truth = np.kron(truth[:6, :6], np.ones((5, 5), int))
    answers = []
    for wrong in reversed(range(steps)):
        answer = truth.copy()
        answer.flat[:wrong] = 9
        answers.append(grid_text(answer.tolist()))
    grid = grid_text(truth.tolist())
    attempts = [{"grid": grid, "votes": 10}, {"grid": answers[0], "votes": 2.5}, {"grid": "0", "votes": 1}]
    test = {"input": grid, "truth": grid, "attempts": attempts, "votes": 17, "steps": answers}
    return Solved({"id": "a" * 40, "train": [{"input": grid, "output": grid}] * pairs, "test": [test]}, test)


@pytest.mark.parametrize("name", FROM_CODE)
def test_a_figure_of_the_code_is_up_to_date_and_readable(name: str) -> None:
    figure = FROM_CODE[name]()
    assert (FOLDER / name).read_text(encoding="utf-8") == figure, f"run: {COMMAND}"
    assert_readable(figure, is_dense=name == "architecture.svg")


@pytest.mark.parametrize(("side", "steps", "pairs"), [(1, 1, 1), (4, 2, 3), (6, 4, 5), (12, 9, 3), (30, 16, 4)])
def test_a_solved_puzzle_of_any_size_is_readable(side: int, steps: int, pairs: int) -> None:
    figure = draw_solved(solved_puzzle(side, steps, pairs))
    assert_readable(figure)
    words = words_of(figure)
    assert "right" in words and any("attempt 1: right" in each for each in words)
    assert steps == 1 or "another size" not in words
    assert ("1 wrong cell" in words) == (steps > 1), "the step before the last"


def test_the_committed_figures_of_runs_are_readable() -> None:
    for name in ("solved.svg", "curves.svg"):
        assert_readable((FOLDER / name).read_text(encoding="utf-8"))


def test_a_run_that_has_solved_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unsolved = solved_puzzle(3, 2)
    unsolved.test["attempts"].reverse()
    monkeypatch.setattr(solved, "read_saved_run", lambda run, data: ("", {"tasks": [unsolved.task]}))
    with pytest.raises(DataError, match="run-1"):
        solved.draw_solved_run(tmp_path / "run-1")
    unsolved.test["attempts"].reverse()
    assert "right" in words_of(solved.draw_solved_run(tmp_path / "run-1"))


def test_curves_of_several_seeds_have_a_spread(small_run: Path, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        shutil.copytree(small_run, tmp_path / "runs" / f"small-{seed}", ignore=shutil.ignore_patterns("step_*"))
        folder = tmp_path / "runs" / f"small-{seed}"
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            if "lm_loss" in line:
                line["lm_loss"] += seed
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        settings = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(settings.replace("seed: 0", f"seed: {seed}"))
    (recipe,) = find_recipes(tmp_path / "runs")
    assert recipe.name == "small" and len(recipe.logs) == 3
    curve = curve_of(recipe.logs, "lm_loss")
    assert curve is not None and np.allclose(curve.mean - curve.low, 1) and np.allclose(curve.high - curve.mean, 1)
    done = run_script("-m", "docs.figures", "--curves", str(tmp_path / "runs"), "--out", str(tmp_path / "figures"))
    assert done.returncode == 0, done.stderr
    assert "solved.svg needs a finished run" in done.stdout and "curves.svg needs" not in done.stdout
    drawn = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "figures").iterdir()}
    assert drawn.keys() == {*FROM_CODE, "curves.svg"}
    assert_readable(drawn["curves.svg"])
    assert "polygon" in drawn["curves.svg"] and "small" in words_of(drawn["curves.svg"])
    done = run_script("-m", "docs.figures", "--curves", str(tmp_path / "nothing"), "--out", str(tmp_path / "no"))
    assert done.returncode == 2 and "nothing" in done.stderr and not (tmp_path / "no").exists()


def test_the_recursion_is_drawn_as_the_code_makes_it() -> None:
    cycles = record_updates(ArchConfig(H_cycles=2, L_cycles=3))
    assert [[update.latent for update in cycle] for cycle in cycles] == [["z_L", "z_L", "z_L", "z_H"]] * 2
    assert [{update.has_gradient for update in cycle} for cycle in cycles] == [{False}, {True}]
    for cycles_of in ((1, 1), (5, 8)):
        assert_readable(draw_recursion(ArchConfig(H_cycles=cycles_of[0], L_cycles=cycles_of[1])))


def test_every_slot_works_in_every_step_and_halts_as_the_code_says() -> None:
    arch = ArchConfig(halt_max_steps=6, halt_exploration_prob=0.5)
    stays = simulate_slots(arch, slots=5, steps=40)
    for slot in range(5):
        own = [stay for stay in stays if stay.slot == slot]
        assert own[0].first == 0 and own[-1].end == 40
        assert [stay.end for stay in own[:-1]] == [stay.first for stay in own[1:]], "no slot waits"
    assert sorted(stay.number for stay in stays) == list(range(1, len(stays) + 1)), "each example once"
    assert max(stay.end - stay.first for stay in stays) == 6
    assert all(stay.end - stay.first == 6 for stay in stays if stay.sure is False)
    assert any(stay.held for stay in stays) and any(stay.sure for stay in stays)


def test_canvases_hold_the_pair_that_the_puzzle_names() -> None:
    pair, rows = read_pair(PUZZLE), choose_augmentations()
    assert not (rows[0] != IDENTITY_ROW).any() and len({int(row[0]) for row in rows}) == len(rows)
    for row, *canvases in zip(rows, *encode_pair(pair, rows), strict=True):
        augmentation = Augmentation(int(row[0]), tuple(map(int, row[1:])))
        for canvas, grid in zip(canvases, pair, strict=True):
            colours = canvas[canvas >= COLOUR_0].reshape(augmentation.apply(grid).shape) - COLOUR_0
            assert (augmentation.invert(colours) == grid).all()


def test_the_folder_that_a_checkpoint_is_written_in_has_the_drawn_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, set[str]]] = []
    install = files.install

    def watch(staging: Path, target: Path, last: str | None = None) -> None:
        seen.append((f"{staging.name}/", {path.name for path in staging.iterdir()}))
        install(staging, target, last)

    monkeypatch.setattr(files, "install", watch)
    saved = save_tiny_state()
    ((name, written),) = seen
    assert name == PARTIAL.replace("N", "1") and written == {*saved.files, RECORD}
