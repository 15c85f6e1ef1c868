"""dataset/statistics/measure.py: counts by hand, both formats alike, and a picture."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sections import reference
from dataset.build.arc import build_arc
from dataset.build.grid_puzzles import MazeSettings, build_maze
from dataset.build.settings import ArcSettings
from dataset.statistics.__main__ import format_statistics, main
from dataset.statistics.measure import decode_pairs, measure_data_set
from dataset.tasks import Task
from tests.conftest import random_task, write_kaggle
from utils.errors import DataError


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
    s = measure_data_set(build(prefix, tmp_path, fmt))
    assert (s.side, s.test_tasks, s.test_inputs, s.unknown_outputs, s.num_aug) == (5, 1, 1, 0, 200)
    assert s.pairs.tolist() == [2, 2, 3, 1]
    sources = [(x.name, x.tasks, x.weight, x.visits, x.examples) for x in s.subsets]
    names = ("train", "test") if fmt == "compact" else ("all tasks, weight 2", "all tasks")
    assert sources == [(names[0], 3, 2, 6, 14), (names[1], 1, 1, 1, 1)]
    assert s.colours.tolist() == [2 * 4 + 1, 2 * 6, 2 * 2, 0, 0, 8, 2 + 1, 2, 2, 2]
    assert s.colours_per_task.tolist() == [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]
    assert s.sizes[0][2, 2] == 3 and s.sizes[1][1, 3] == 2 and s.sizes.sum() == 2 * len(s.used_tokens) == 18
    assert s.same_size == pytest.approx(6 / 9)
    assert s.repeated == [["a", "b"]] and s.contaminated == []
    if fmt == "compact":  # a 2 x 2 input and its EOS: 4 + 4 cells, and the 1 x 2 output's lie within these
        assert s.used_tokens[0] == 8
    assert s.puzzles[:3].tolist() == [201, 201, 201] and 72 < s.puzzles[3] <= 144  # 9 x 8 colours, lying or standing
    printed = format_statistics(s)
    assert "1 training task repeats the inputs of another one under some augmentation: a = b" in printed
    assert "no test task is trained on under another name or augmentation" in printed
    assert "1 task has fewer than the 201 asked for" in printed


def test_a_test_task_that_is_trained_on_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task = random_task("secret", rng)
    turned = [tuple((np.rot90(a), np.rot90(b)) for a, b in side) for side in (task.train, task.test)]  # type: ignore[arg-type]
    write_kaggle(tmp_path, "train", [Task("copy", "", *turned)])
    s = measure_data_set(build(write_kaggle(tmp_path, "test", [task]), tmp_path, "compact"))
    assert s.contaminated == [("secret", "copy")]
    assert "warning: 1 of the 1 test tasks is also trained on: secret = copy" in format_statistics(s)


def test_grids_are_decoded_at_any_offset() -> None:
    """From an encoded pair back to the pair: on the canvas's corner, in its middle and at its end."""
    rng = np.random.default_rng(0)
    pair = (rng.integers(0, 10, (2, 3)), rng.integers(0, 10, (3, 1)))
    for offset in ((0, 0), (1, 2), (3, 3)):
        inputs, labels = (np.array([row], dtype=np.uint8) for row in reference.encode_pair(pair, 6, *offset))
        assert [g.tolist() for g in decode_pairs(inputs, labels)[0] if g is not None] == [g.tolist() for g in pair]
        assert decode_pairs(inputs, np.zeros_like(labels))[0][1] is None
        with pytest.raises(DataError, match="no coloured cell"):
            decode_pairs(np.zeros_like(inputs), labels)


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["dataset.statistics", *words])
    main()


@pytest.mark.filterwarnings("error")
def test_the_command_prints_and_draws(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    folder = build(prefix, tmp_path, "compact")
    capsys.readouterr()
    command(monkeypatch, str(folder), "--out", str(tmp_path / "x.png"))
    printed = capsys.readouterr()
    assert "4 tasks" in printed.out and printed.err == ""
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit) as refused:
        command(monkeypatch, str(folder), "--out", str(tmp_path / "x.doc"))
    assert refused.value.code == 2 and "does not end in a known format" in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as refused:
        command(monkeypatch, str(build(prefix, tmp_path, "compact")), "--out", str(tmp_path / "x.png"))
    assert refused.value.code == 2 and 'pip install -e ".[pictures]"' in capsys.readouterr().err


def test_what_holds_no_tasks_is_refused(tmp_path: Path) -> None:
    settings = MazeSettings(size=7, subsample_size=3, test_size=3, output_dir=str(tmp_path / "m"))
    build_maze(settings, lambda done, total: None)
    for folder, said in ((tmp_path / "m", "has no ARC tasks"), (tmp_path, "is not a data set folder")):
        with pytest.raises(DataError, match=said):
            measure_data_set(folder)
