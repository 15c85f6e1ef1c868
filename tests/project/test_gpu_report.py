"""benchmarks/gpu_report: every part at small sizes on a CPU; parts that fail, hang or come too late."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import timing
from benchmarks.gpu_report import __main__ as gpu_report
from benchmarks.gpu_report import parts
from benchmarks.gpu_report.parts import PARTS, SMALL, Part
from benchmarks.sections import steps
from utils.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MOST", 1)
    monkeypatch.setattr("benchmarks.canvases.ROUNDS", 1)
    monkeypatch.setattr("benchmarks.sections.ceilings.matmul_flops", lambda *_: 1e12)
    monkeypatch.setattr("benchmarks.sections.operations.STEPS", 1)


@pytest.mark.parametrize("name", ["products", "steps", "fine-tuning", "canvases", "prediction", "operations"])
def test_every_part_measures_something(name: str, small_data: Path) -> None:
    sizes = SMALL._replace(training_data=small_data, test_data=small_data)
    found: dict[str, Any] = {}
    for results in PARTS[name].measure(sizes, CPU):
        found |= results
    numbers = [value for value in found.values() if isinstance(value, int | float)]
    assert numbers and all(value >= 0 for value in numbers), found
    report = {"parts": {name: {"outcome": "done", "seconds": 1.0, "results": found}}}
    assert len(gpu_report.table(report).splitlines()) >= 8
    assert json.loads(json.dumps(found)) == found


def says(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_part_that_fails_keeps_what_it_measured() -> None:
    found = gpu_report.run_part(
        says("print('RESULT {\"a\": 1}'); print('RESULT {\"b\": 2}'); raise SystemExit('ah')"), 30
    )
    assert found["outcome"] == "failed with status 1"
    assert found["results"] == {"a": 1, "b": 2}
    assert found["said"] == "ah"


HANGS = """
import subprocess, sys
print('RESULT {"a": 1}', flush=True)
subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[2]])
"""

TICKS = """
import sys, time
while True:
    with open(sys.argv[1], "a") as file:
        file.write(".")
    time.sleep(0.05)
"""


def test_a_part_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    found = gpu_report.run_part([*says(HANGS), TICKS, str(ticks)], 4.0)
    assert (found["outcome"], found["results"]) == ("stopped after 4 s", {"a": 1})
    count = ticks.stat().st_size
    time.sleep(0.5)
    assert ticks.stat().st_size == count > 0


def test_the_report_goes_on_after_a_failure_and_stops_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, limits = 0.0, []

    def run_part(command: list[str], limit: float) -> dict[str, Any]:
        nonlocal now
        now += 40
        limits.append((command[-2:], limit))
        written = json.loads(output.read_text())["parts"] if output.exists() else {}
        assert list(written) == ["a", "b", "c"][: len(limits) - 1], "what is measured is on the disk"
        failed = len(limits) == 1
        outcome = {"outcome": "failed with status 1", "said": "boom"} if failed else {"outcome": "done"}
        return {**outcome, "seconds": 40.0, "results": {"x": 1.5}}

    monkeypatch.setattr(gpu_report, "run_part", run_part)
    monkeypatch.setattr(gpu_report.time, "monotonic", lambda: now)
    output = tmp_path / "report.json"
    chosen = {name: Part(parts.measure_ceilings, 50) for name in "abcd"}
    found = gpu_report.report(output, chosen, ["--small"], most_seconds=125)
    assert limits == [(["a", "--small"], 50), (["b", "--small"], 50), (["c", "--small"], 45)]
    outcomes = {name: part["outcome"] for name, part in found["parts"].items()}
    assert outcomes == {"a": "failed with status 1", "b": "done", "c": "done", "d": "left out: the time is up"}
    assert json.loads(output.read_text()) == found
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["gpu_report", "--show", str(output)])
    gpu_report.main()
    shown = capsys.readouterr().out
    assert "## a: failed" in shown and "boom" in shown and "| x | 1.5 |" in shown


def test_all_limits_together_keep_the_promise() -> None:
    """Each part may also take seconds to start and to be ended."""
    assert sum(part.limit + 5 for part in PARTS.values()) <= gpu_report.MOST_SECONDS == 25 * 60


def test_one_part_is_measured_in_its_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(PARTS, "ceilings", Part(lambda sizes, device: iter([{"at": sizes.steps[0].name}, {"b": 2}]), 1))
    monkeypatch.setattr(sys, "argv", ["gpu_report", "--part", "ceilings", "--small"])
    gpu_report.main()
    assert capsys.readouterr().out == 'RESULT {"at": "small"}\nRESULT {"b": 2}\n'


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_report"])
    with pytest.raises(SystemExit) as stopped:
        gpu_report.main()
    assert stopped.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "passed", "device", "said"),
    [(0, 2, "cuda", None), (0, 0, "cpu", None), (0, 0, "cuda", "no test passed"), (3, 1, "cuda", "status 3")],
)
def test_tests_that_did_not_run_are_a_failure(
    status: int, passed: int, device: str, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = "<testcase name='a'/>" * passed + "<testcase name='b'><skipped/></testcase>"

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        outcome = next(word.partition("=")[2] for word in command if word.startswith("--junitxml="))
        Path(outcome).write_text(f"<testsuite>{cases}</testsuite>")
        return SimpleNamespace(returncode=status)

    monkeypatch.setattr(parts.subprocess, "run", run)
    results = parts.run_tests(SMALL, torch.device(device))
    assert next(results) == {"passed": passed, "failed": 0, "skipped": 1}
    if said is None:
        assert list(results) == []
    else:
        with pytest.raises(RuntimeError, match=said):
            list(results)


def test_the_outcome_of_tests_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure message="1 != 2"/></testcase>'
        '<testcase name="c"><skipped/></testcase><testcase name="d"><error message="no"/></testcase>'
        "</testsuite></testsuites>"
    )
    wanted = {"passed": 1, "failed": 2, "skipped": 1, "failed: b": "1 != 2", "failed: d": "no"}
    assert parts.read_outcome(tmp_path / "x.xml") == wanted


def test_tests_that_fail_make_the_part_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        outcome = next(word for word in words if word.startswith("--junitxml=")).removeprefix("--junitxml=")
        Path(outcome).write_text('<testsuite><testcase name="a"/><testcase name="b"><failure/></testcase></testsuite>')
        return subprocess.CompletedProcess(words, 1)

    monkeypatch.setattr(parts.subprocess, "run", run)
    found = parts.run_tests(SMALL, CPU)
    assert next(found)["failed"] == 1
    with pytest.raises(RuntimeError, match="1 of 2 tests failed"):
        next(found)


def test_a_second_report_of_a_day_keeps_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    first = gpu_report.default_output(False, date(2026, 1, 2))
    first.parent.mkdir(parents=True)
    first.touch()
    second = gpu_report.default_output(False, date(2026, 1, 2))
    assert first.name == "2026-01-02_gpu_nvidia_h100.json" and second != first and second.parent == first.parent


@pytest.mark.parametrize("content", [None, "no JSON", "[]", "{}", '{"parts": []}'])
def test_what_is_no_report_is_refused_in_a_sentence(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"report\.json: "):
        gpu_report.read_report(path)


@pytest.mark.parametrize(("gigabytes", "examples"), [(80, 128), (16, 64)])
def test_every_size_fits_the_memory_of_the_gpu(monkeypatch: pytest.MonkeyPatch, gigabytes: int, examples: int) -> None:
    properties = SimpleNamespace(total_memory=gigabytes * 1e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    sizes = parts.published(torch.device("cuda"))
    assert examples == sizes.finetuning.B
    assert sizes.steps, "at least one step is measured"
    for size in (*sizes.steps, sizes.finetuning, sizes.training):
        assert steps.predicted_bytes(size) < gigabytes * 1e9
