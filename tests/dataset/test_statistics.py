"""dataset/statistics/measure.py: counts by hand, both formats alike, and a picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dataset.build.arc import build_arc
from dataset.build.settings import ArcSettings
from dataset.statistics.__main__ import text
from dataset.statistics.measure import gather
from dataset.tasks import Task
from tests.conftest import ROOT, random_task, run_script, write_kaggle


def grid(*rows: str) -> np.ndarray:
    return np.array([[int(cell) for cell in row] for row in rows], dtype=np.uint8)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two training tasks that are one but for rotation and name, one of a kind, and one test task."""
    folder = tmp_path_factory.mktemp("source")
    pairs = ((grid("12", "00"), grid("11")), (grid("100"), grid("211")))
    first = Task("a", "", pairs[:1], pairs[1:])
    turned = Task("b", "", tuple((np.rot90(x), np.rot90(y)) for x, y in pairs), ((grid("3"), grid("4")),))
    turned = Task("b", "", turned.train[:1], turned.train[1:])
    other = Task("c", "", ((grid("55", "55"), grid("55", "55")), (grid("7"), grid("7"))), ((grid("9"), grid("9")),))
    write_kaggle(folder, "train", [first, turned, other])
    return write_kaggle(folder, "test", [Task("t", "", ((grid("8"), grid("8")),), ((grid("6"), grid("606")),))])


def build(prefix: str, folder: Path, fmt: str) -> Path:
    words = [f"{prefix},subsets=train,weight=2", f"{prefix},subsets=test"]
    settings = {"num_aug": 200, "max_grid_size": 5, "test_set_name": "test", "format": fmt}
    build_arc(ArcSettings(sources=words, output_dir=str(folder / fmt), **settings), lambda done, total: None)
    return folder / fmt


@pytest.mark.parametrize("fmt", ["compact", "expanded"])
def test_counts_are_those_by_hand(prefix: str, fmt: str, tmp_path: Path) -> None:
    s = gather(build(prefix, tmp_path, fmt))
    assert (s.side, s.test_tasks, s.test_inputs, s.unknown, s.asked) == (5, 1, 1, 0, 200)
    assert s.pairs.tolist() == [2, 2, 3, 1]
    sources = [(x.name, x.tasks, x.weight, x.visits, x.examples) for x in s.sources]
    names = ("train", "test") if fmt == "compact" else ("all tasks, weight 2", "all tasks")
    assert sources == [(names[0], 3, 2, 6, 14), (names[1], 1, 1, 1, 1)]
    assert s.colours.tolist() == [2 * 4 + 1, 2 * 6, 2 * 2, 0, 0, 8, 2 + 1, 2, 2, 2]
    assert s.colours_per_task.tolist() == [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]
    assert s.sizes[0][2, 2] == 3 and s.sizes[1][1, 3] == 2 and s.sizes.sum() == 2 * len(s.used) == 18
    assert s.same_size == pytest.approx(6 / 9)
    assert s.repeated == [["a", "b"]] and s.trained_on == []
    if fmt == "compact":  # a 2 x 2 input and its EOS: 4 + 4 cells, and the 1 x 2 output's lie within these
        assert s.used[0] == 8
    assert s.puzzles[:3].tolist() == [201, 201, 201] and 72 < s.puzzles[3] <= 144  # 9 x 8 colours, lying or standing
    said = text(s)
    assert "1 training tasks repeat another's inputs under some augmentation: a = b" in said
    assert "none of the 1 test tasks is trained on" in said
    assert "1 tasks have fewer than the 201 asked for" in said


def test_a_test_task_that_is_trained_on_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task = random_task("secret", rng)
    turned = [tuple((np.rot90(a), np.rot90(b)) for a, b in side) for side in (task.train, task.test)]  # type: ignore[arg-type]
    write_kaggle(tmp_path, "train", [Task("copy", "", *turned)])
    s = gather(build(write_kaggle(tmp_path, "test", [task]), tmp_path, "compact"))
    assert s.trained_on == [("secret", "copy")]
    assert "warning: 1 of 1 test tasks are trained on under another name: secret = copy" in text(s)


def test_the_command_prints_and_draws(prefix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = build(prefix, tmp_path, "compact")
    done = run_script("-W", "error", "-m", "dataset.statistics", str(folder), "--out", str(tmp_path / "x.png"))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    refused = run_script("-m", "dataset.statistics", str(folder), "--out", str(tmp_path / "x.doc"))
    assert refused.returncode == 2 and "ends in no known format" in refused.stderr


def test_without_matplotlib_the_extra_is_named(prefix: str, tmp_path: Path) -> None:
    folder = build(prefix, tmp_path, "compact")
    hide = (
        "import sys, runpy; sys.modules['matplotlib'] = None; "
        f"sys.argv = ['x', {str(folder)!r}, '--out', 'x.png']; "
        "runpy.run_module('dataset.statistics', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", hide], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and 'pip install -e ".[pictures]"' in done.stderr, done.stderr


def test_what_holds_no_tasks_is_refused(tmp_path: Path) -> None:
    built = run_script(
        *("build_dataset.py", "maze", "--size", "7", "--subsample-size", "3", "--test-size", "3"),
        *("--output-dir", str(tmp_path / "m")),
    )
    assert built.returncode == 0, built.stderr
    for folder, said in ((tmp_path / "m", "holds no ARC tasks"), (tmp_path, "is not a data set folder")):
        with pytest.raises(ValueError, match=said):
            gather(folder)
