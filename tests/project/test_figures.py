"""docs/figures: the committed drawing is what the code says; the layers are read from its imports."""

from __future__ import annotations

import graphlib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.figures.__main__ import COMMAND, FIGURE
from docs.figures.structure.architecture import draw
from docs.figures.structure.data_path import PATH
from docs.figures.structure.imports import FOLDERS, Layer, direct_imports, read_layers, rows_of_layers
from tests.conftest import ROOT


def words_of(figure: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(figure).iter("{http://www.w3.org/2000/svg}text")]


def test_the_drawing_is_up_to_date() -> None:
    assert FIGURE.read_text(encoding="utf-8") == draw(read_layers(ROOT)), f"run: {COMMAND}"


def test_the_drawing_names_every_module_and_stage() -> None:
    words = " ".join(words_of(FIGURE.read_text(encoding="utf-8"))).replace("·", " ").split()
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
