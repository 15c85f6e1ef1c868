"""benchmarks/: a busy machine is said, and results of two commits are compared."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare, run, timing


def result_of(folder: Path, name: str, results: dict[str, Any], **about: Any) -> Path:
    path = folder / name
    found = {"cpu": "X", "cores": 2, "gpu": None, "torch": "2", "clock": "wall", "busy_cores": {}} | about
    path.write_text("a table\n  of numbers  1\n" + json.dumps({**found, "results": results}) + "\n")
    return path


def compared(a: Path, b: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["compare", str(a), str(b)])
    compare.main()
    return capsys.readouterr().out.splitlines()


def test_two_results_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a = result_of(tmp_path, "a.json", {"step": {"demo, s": 0.2, "gone": 1, "peak": "out of memory"}})
    b = result_of(tmp_path, "b.json", {"step": {"demo, s": 0.1, "new": 1, "peak": 3.0}})
    header, row = compared(a, b, monkeypatch, capsys)
    assert header.split() == ["A", "B", "B", "/", "A"]
    assert row.split() == ["step", "|", "demo,", "s", "0.2", "0.1", "0.500"]


def test_what_keeps_numbers_from_being_compared_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a = result_of(tmp_path, "a.json", {"step": {"s": 1}}, busy_cores={"step": 1.5, "data": 0.0})
    b = result_of(tmp_path, "b.json", {"step": {"s": 1}}, cpu="Y")
    said = compared(a, b, monkeypatch, capsys)
    assert said[0].startswith("not the same cpu: X and Y")
    assert "A was measured while other programs were busy: step (1.5 cores)" in said[1]


@pytest.mark.parametrize("content", ["", "{}", "no json", '{"results": 3}'])
def test_what_is_not_a_result_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(SystemExit, match="is not a result"):
        compare.read_result(tmp_path / "x.json")


def test_the_work_of_other_programs_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    ticks = os.sysconf("SC_CLK_TCK")
    stat.write_text("cpu  100 0 50 900 10 0 0 0 0 0\ncpu0 1 1\n")

    def sleep(seconds: float) -> None:  # 3 cores' time of work, 1 of waiting
        work = round(3 * ticks * seconds)
        stat.write_text(f"cpu  {100 + work} 0 50 {900 + ticks} {10 + ticks} 0 0 0 0 0\n")

    monkeypatch.setattr(timing.time, "sleep", sleep)
    assert timing.busy_cores(2.0, stat) == pytest.approx(3.0)


@pytest.mark.parametrize("busy", [0.0, 1.5])
def test_a_section_of_a_busy_machine_is_marked(
    busy: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timing, "busy_cores", lambda: busy)
    monkeypatch.setitem(run.SECTIONS, "ceilings", lambda device: {"product": 1.0})
    monkeypatch.setattr(sys, "argv", ["run", "--only", "ceilings"])
    run.main()
    *table, last = capsys.readouterr().out.splitlines()
    assert any("BUSY" in line for line in table) == (busy > 0)
    assert json.loads(last)["busy_cores"] == {"ceilings": busy}


def test_what_a_claim_about_speed_needs_is_written_section_by_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output, written = tmp_path / "new" / "speed.json", []

    def measure(device: object) -> dict[str, Any]:
        written.append(list(json.loads(output.read_text())["results"]) if output.exists() else [])
        return {"demo: step, s": 0.25}

    monkeypatch.setattr(timing, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(run, "TABLES", {})
    for name in run.SECTIONS:
        monkeypatch.setitem(run.SECTIONS, name, measure)
    monkeypatch.setattr(sys, "argv", ["run", "--only", "speed", "--output", str(output)])
    run.main()
    assert written == [list(run.SPEED[:n]) for n in range(len(run.SPEED))]
    *_, last = capsys.readouterr().out.splitlines()
    assert json.loads(last) == json.loads(output.read_text())
    monkeypatch.setattr(sys, "argv", ["run", "--show", str(output)])
    run.main()
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line in run.SPEED] == list(run.SPEED)
    assert shown.count("0.25") == len(run.SPEED)
