"""What the documents name exists: files, folders, tests, modules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.figures.structure.imports import read_layers
from tests.builders.commands import documents
from tests.conftest import ROOT

FOLDERS = "benchmarks|config|dataset|docs|evaluators|examples|models|tests|training|utils"
PLACES = re.compile(rf"`((?:{FOLDERS})/[\w./-]*)`")
TESTS = re.compile(r"(test_\w+\.py)(?:::(\w+))?|\.\.::(\w+)")


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_named_file_exists(path: Path) -> None:
    for place in PLACES.findall(path.read_text(encoding="utf-8")):
        if "NAME" in place:
            continue  # stands for any
        assert (ROOT / place).exists(), f"{place} is not there: name the file that replaced it"


def test_the_path_of_the_data_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (flow,) = [block for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL) if block.startswith("ARC JSON")]
    places = re.findall(rf"(?:{FOLDERS})/[\w./]*", flow)
    assert len(places) > 10
    for place in places:
        assert (ROOT / place.rstrip(".")).exists(), place


def test_every_folder_has_its_sentence() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for layer in read_layers(ROOT).values():
        for folder in (layer.name, *(f"{layer.name}/{part}" for part in layer.parts)):
            assert folder == "scripts" or f"| `{folder}/` |" in page, (
                f"docs/architecture.md has no sentence on {folder}/"
            )


@pytest.mark.parametrize("page", ["docs/reliability.md", "docs/guides/several-machines.md", "CONTRIBUTING.md"])
def test_every_named_test_exists(page: str) -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    file = ""
    for named, function, following in TESTS.findall((ROOT / page).read_text(encoding="utf-8")):
        file = named or file
        assert file in sources, f"there is no {file} in tests/"
        if name := function or following:
            assert f"def {name}(" in sources[file], f"{file} has no test {name}"


def test_every_test_of_the_promises_is_found() -> None:
    assert len(TESTS.findall((ROOT / "docs" / "reliability.md").read_text(encoding="utf-8"))) > 25


def test_every_moved_module_is_where_the_changelog_says() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    table = changelog.partition("| old module | new module |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    for _, new in rows:
        for module in re.findall(r"`([\w.]+)`", new):
            path = ROOT / module.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), f"{module} is not there"
