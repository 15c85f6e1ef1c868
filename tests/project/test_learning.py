"""benchmarks/learning: pairing, intervals, task sets by rule, and runs that are not made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning import __main__ as command
from benchmarks.learning import page, results, runs, task_sets
from benchmarks.learning.comparisons import COMPARISONS, Comparison
from benchmarks.learning.results import Outcome, bootstrap_difference, smallest_difference, summarise
from benchmarks.learning.runs import Job
from benchmarks.learning.task_sets import DataSets
from dataset.storage import open_test_tasks
from tests.conftest import SMALL


def outcome(seed: int, **ranks: list[int]) -> Outcome:
    return Outcome(seed, 10, 1.0, ranks, train_exact=0.5, loss=1.0, held_out_loss=None)


def test_a_difference_is_paired_by_seed_and_task() -> None:
    """Every seed solves one more output of the four, always of task b: the interval stays above zero for a constant
    gain of every task, and the mean is a quarter."""
    one = [outcome(seed, a=[1, 0], b=[1, seed]) for seed in (1, 2)]
    other = [outcome(seed, a=[2, 0], b=[0, seed]) for seed in (1, 2)]
    mean, low, high = bootstrap_difference(one, other, 2)
    assert mean == pytest.approx(0.25) and low == 0 and high == pytest.approx(0.5)
    everywhere, least, most = bootstrap_difference([outcome(0, a=[1], b=[1])], [outcome(0, a=[3], b=[0])], 2)
    assert everywhere == least == most == 1


def test_solved_counts_inputs_within_k() -> None:
    found = outcome(0, a=[1, 3], b=[0, 2])
    assert [found.solved(k) for k in (1, 2, 10)] == [0.25, 0.5, 0.75]
    assert found.solved(10, lambda task: task == "b") == 0.5
    assert found.mean_reciprocal_rank() == pytest.approx((1 + 1 / 3 + 1 / 2) / 4)


def test_the_smallest_difference_is_two_standard_errors() -> None:
    """Of pass@2 0 and 1 in one arm, 0.5 twice in the other: the pooled variance is 0.25, two seeds each."""
    arms = {"x": [outcome(0, a=[0]), outcome(1, a=[1])], "y": [outcome(0, a=[1], b=[0]), outcome(1, a=[1], b=[0])]}
    assert smallest_difference(arms, 2) == pytest.approx(2 * np.sqrt(2 * 0.25 / 2))
    assert smallest_difference({"x": [outcome(0, a=[1])]}, 2) is None


def test_task_sets_are_chosen_by_rule() -> None:
    tasks = task_sets.TASK_SETS["screening"].tasks()
    assert (len(tasks), sum(len(task.test) for task in tasks)) == (65, 75)
    wider = task_sets.TASK_SETS["decision"].tasks()
    assert (len(wider), sum(len(task.test) for task in wider)) == (301, 325)
    halves = [task_sets.half_of(task.id) for task in wider]
    new = [task_sets.is_new(task.id) for task in wider]
    assert 0.4 < np.mean(halves) < 0.6 and 0.15 < np.mean(new) < 0.35


def test_new_tasks_are_in_no_data_of_before(tmp_path: Path) -> None:
    data = task_sets.build(tmp_path, task_sets.TASK_SETS["screening"], "new_tasks", 1)
    assert data.before is not None
    before = json.loads((data.before / "manifest.json").read_text())["counts"]["tasks"]
    scored = open_test_tasks(data.scored)
    assert before + len(scored) == 65 and all(map(task_sets.is_new, scored))


def test_a_comparison_is_made_once_and_read_back(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two arms, two seeds, equal steps and equal time; the second call starts no run and writes the same."""
    started: list[list[str]] = []
    start = runs._start

    def counting(words: list[str], folder: Path) -> None:
        started.append(words)
        start([*words, *SMALL], folder)

    monkeypatch.setattr(runs, "_start", counting)
    monkeypatch.setattr(command, "build", lambda *_: DataSets(None, small_data))
    arms = {"first": ("lr=1e-3",), "second": ("lr=2e-3",)}
    monkeypatch.setitem(COMPARISONS, "tiny", Comparison("screening", "held_out", arms, steps=1))
    monkeypatch.setattr("sys.argv", ["learning", "tiny", "--folder", str(tmp_path), "--seeds", "1"])
    command.main()
    assert len(started) == 2
    first = capsys.readouterr().out
    command.main()
    assert len(started) == 2
    assert first.splitlines()[2:] == capsys.readouterr().out.splitlines()
    (path,) = tmp_path.glob("*.json")
    report = results.read_file(path)
    found = summarise(results.from_json(report["outcomes"]["equal steps"]))
    assert found["second"]["difference"].keys() == {"pass@1", "pass@2", "pass@10"}
    assert "| first | 1 |" in page.format_table(report)


def test_the_best_rate_is_chosen_on_half_of_the_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other half prefers another rate, and is not asked."""
    names = [f"t{i}" for i in range(12)]
    chooses = [name for name in names if task_sets.half_of(name) == 0]
    assert 0 < len(chooses) < 12

    def fake(job: Job) -> Outcome:
        good = chooses if "lr=2" in job.settings else [name for name in names if name not in chooses]
        return outcome(0, **{name: [1 if name in good else 0] for name in names})

    monkeypatch.setattr(command, "outcome_of", fake)
    monkeypatch.setattr(command, "run_all", lambda jobs, side_by_side: None)
    comparison = Comparison("screening", "held_out", {"a": ("x=1",)}, tuned={"a": ("lr=1", "lr=2")})
    tuned, found = command.tune(tmp_path, comparison, DataSets(None, tmp_path), 1)
    assert tuned.arms["a"] == ("x=1", "lr=2")
    assert found["a"]["lr=2"]["pass@2, half 0"] == 1 and found["a"]["lr=1"]["pass@2, half 0"] == 0
