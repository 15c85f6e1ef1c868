"""utils/plot.py: which curves a log has, and what the picture shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import run_script
from utils import plot
from utils.errors import InputError
from utils.plot import CURVES, select_curves


def log_of(slope: float, steps: int = 40) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [
        {"step": 10 * i, "lm_loss": 2 - slope * i / steps, "exact_accuracy": slope * i / steps, "count": i, "q": None}
        for i in range(1, steps + 1)
    ]
    return [*lines, {"step": 10 * steps, "ARC/pass@2_inputs": 0.5, "ARC/tasks": 3}]


def pixels(path: Path) -> np.ndarray:
    pil = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    return np.asarray(pil.open(path).convert("RGB"))


def share_of(image: np.ndarray, colour: str) -> float:
    wanted = np.array(list(bytes.fromhex(colour[1:])))
    return float((np.abs(image.astype(int) - wanted).max(-1) < 12).mean())


def test_a_curve_needs_two_points_and_keeps_its_ends() -> None:
    found = select_curves(log_of(1, 1001))
    assert list(found) == ["lm_loss", "exact_accuracy"]  # one score is no curve
    for points in found.values():
        assert 300 < len(points) <= 401
        assert points[0][0] == 10 and points[-1][0] == 10010
    assert found["exact_accuracy"][-1] == [10010, 1.0]
    assert list(select_curves(log_of(1), ["count"])) == ["count"]


def test_the_picture_has_a_panel_for_each_curve_of_the_log(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    log = [line | {"lr": 1e-3, "steps": 2.0} for line in log_of(1)]
    selected = select_curves(log)
    assert list(selected) == [name for name in CURVES if name in ("lm_loss", "exact_accuracy", "steps", "lr")]
    assert plot.draw_curves({"one": log}, tmp_path / "a.png") == len(selected)


def test_running_mean_is_that_of_the_last_few() -> None:
    values = np.random.default_rng(0).normal(size=30)
    wanted = [values[max(0, i - 6) : i + 1].mean() for i in range(30)]
    assert plot.running_mean(values, 7) == pytest.approx(wanted)
    assert plot.running_mean(values, 1) == pytest.approx(values)


def test_every_run_has_its_colour_in_every_panel(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    runs = {"one": log_of(1), "two": log_of(0.2), "three": log_of(0.6, 20)}
    assert plot.draw_curves(runs, tmp_path / "a.png") == 2
    image = pixels(tmp_path / "a.png")
    height, width = image.shape[:2]
    assert 1000 < width < 1400 and 300 < height < 600
    for panel in (image[:, : width // 2], image[:, width // 2 :]):
        assert all(share_of(panel[height // 5 :], colour) > 2e-4 for colour in plot.COLOURS[:3])
    assert share_of(image, plot.COLOURS[3]) < 1e-4
    assert plot.draw_curves(runs, tmp_path / "b.png", ["count"], smooth=5) == 1
    assert pixels(tmp_path / "b.png").shape[1] < width


def test_runs_are_named_by_the_shortest_ends_that_differ() -> None:
    assert plot.shortest_labels([Path("x/a"), Path("x/b")]) == ["a", "b"]
    assert plot.shortest_labels([Path("x/a/run"), Path("x/b/run"), Path("x/c")]) == ["a/run", "b/run", "x/c"]
    with pytest.raises(InputError, match="named twice"):
        plot.shortest_labels([Path("x"), Path("x/../x")])


def test_the_command_draws_a_run_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log_of(1)))
    out = tmp_path / "curves.png"
    done = run_script("-m", "utils.plot", str(run), "--out", str(out), "--smooth", "3")
    assert done.returncode == 0, done.stderr
    assert "2 curves of 1 run" in done.stdout and out.read_bytes().startswith(b"\x89PNG")
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((str(tmp_path / "empty"),), "has no metrics.jsonl"),
        ((str(run), "--metrics", "los"), "have no curve of los"),
        ((str(run), "--smooth", "0"), "--smooth 0"),
        ((str(run), str(run)), "named twice"),
    ):
        monkeypatch.setattr(sys, "argv", ["plot", "--out", str(tmp_path / "no.png"), *arguments])
        with pytest.raises(SystemExit) as ended:
            plot.main()
        printed = capsys.readouterr().err
        assert ended.value.code == 2 and said in printed and printed.count("\n") == 1
    assert not (tmp_path / "no.png").exists()


def test_without_matplotlib_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r'pip install -e "\.\[pictures\]"'):
        plot.draw_curves({"one": log_of(1)}, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
