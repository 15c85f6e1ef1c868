from __future__ import annotations

import io
from typing import Any

import pytest

from utils.progress import Progress, clock_time, print0, progress_callback


class Clock:
    """Seconds that pass when report to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(steps: int, file: io.StringIO, seconds: float = 1.0, **settings: Any) -> list[str]:
    """The lines of a loop whose first step takes a minute and every other `seconds`."""
    clock = Clock()
    with Progress(100, "train", file=file, clock=clock, every_seconds=10, **settings) as progress:
        for step in range(steps):
            clock.now += 60 if step == 0 else seconds
            progress.update()
            progress.show(f"loss {step}")
    return file.getvalue().splitlines()


def test_plain_lines_where_there_is_no_terminal() -> None:
    lines = run(26, io.StringIO(), enabled=True)
    assert lines == [
        "train 1% 1/100",
        "train 11% 11/100 | 1 step/s | 0:01:29 left | loss 9",
        "train 21% 21/100 | 1 step/s | 0:01:19 left | loss 19",
        "train 26% 26/100 | 1 step/s | 0:01:14 left | loss 25",
    ]


def test_the_last_line_is_printed_once_and_leaves_out_the_time_left() -> None:
    lines = run(100, io.StringIO(), seconds=0.5, enabled=True, items_per_step=64)
    assert lines[-1] == "train 100% 100/100 | 128 examples/s | loss 99"
    assert len(lines) == len(set(lines))


def test_a_resumed_loop_counts_from_where_it_was_and_rates_only_what_it_did() -> None:
    lines = run(11, io.StringIO(), enabled=True, initial=50)
    assert lines[0] == "train 51% 51/100"
    assert lines[1] == "train 61% 61/100 | 1 step/s | 0:00:39 left | loss 9"


def test_the_time_left_is_that_of_a_budget_where_there_is_one() -> None:
    lines = run(26, io.StringIO(), enabled=True, until=100 + 60 + 40)
    assert [line.split(" | ")[2] for line in lines[1:]] == ["0:00:30 left", "0:00:20 left", "0:00:15 left"]
    assert run(26, io.StringIO(), enabled=True, until=9999.0) == run(26, io.StringIO(), enabled=True)
    bar = Terminal()
    run(26, bar, enabled=True, until=100 + 60 + 40)
    assert "0:00:15 left" in bar.getvalue() and "<" not in bar.getvalue()


def test_a_budget_that_ends_before_the_steps_is_what_the_share_is_of() -> None:
    lines = run(26, io.StringIO(), enabled=True, until=100 + 60 + 40)
    assert lines[-1].startswith("train 85% of the time, 26 steps | ")
    assert run(26, io.StringIO(), enabled=True, until=100 + 4000)[-1].startswith("train 26% 26/100")


def test_the_rate_follows_the_recent_past() -> None:
    clock = Clock()
    progress = Progress(10_000, "train", file=io.StringIO(), clock=clock, every_seconds=10, enabled=True)
    for seconds in [1.0] * 100 + [0.1] * 2000:
        clock.now += seconds
        progress.update()
    assert progress.rate() == pytest.approx(10, rel=1e-3)


def test_a_bar_in_a_terminal_and_no_lines() -> None:
    lines = run(30, terminal := Terminal(), enabled=True)
    assert "100" in terminal.getvalue()
    assert not any(line.startswith("train 11/100") for line in lines)


def test_other_ranks_are_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert run(30, io.StringIO()) == run(30, Terminal()) == []
    print0("a line")
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    assert run(30, io.StringIO())
    print0("a line")
    assert capsys.readouterr().out == "a line\n"
    monkeypatch.delenv("RANK")
    assert run(30, io.StringIO())


def test_a_loop_without_steps() -> None:
    with Progress(0, "predict", file=(file := io.StringIO()), enabled=True) as progress:
        assert progress.rate() is None
        assert progress.line() == "predict 0/0"
    assert file.getvalue() == ""


def test_an_error_closes_with_the_last_line() -> None:
    file = io.StringIO()

    def fail() -> None:
        with Progress(10, "train", file=file, clock=Clock(), enabled=True) as progress:
            progress.update(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert file.getvalue() == "train 30% 3/10\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (200_000, "2d 7:33:20")]
)
def test_clock_time(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text


def test_a_count_is_silent_until_it_takes_long() -> None:
    clock, file = Clock(), io.StringIO()
    report = progress_callback("read ", every_seconds=5, file=file, clock=clock)
    for done in range(1, 21):
        clock.now += 0.2
        report(done, 100)
    assert file.getvalue() == ""
    for done in range(21, 101):
        clock.now += 0.5
        report(done, 100)
    lines = file.getvalue().splitlines()
    assert lines[0] == "read 23 of 100, 4.15/s, 0:00:19 left"  # 22 in 5.3 s
    assert len(lines) == 2  # no terminal: every 20 s


def test_one_loop_after_another_begins_again() -> None:
    """And the seconds before its first report, in which something may be compiled, do not count."""
    clock, file = Clock(), io.StringIO()
    report = progress_callback(every_seconds=5, file=file, clock=clock)
    clock.now += 100
    report(1, 10)
    assert file.getvalue() == ""
    clock.now += 5
    report(2, 10)
    report(0, 1000)
    clock.now += 4
    report(400, 1000)
    clock.now += 6
    report(500, 1000)
    assert file.getvalue().splitlines() == ["2 of 10, 0.2/s, 0:00:40 left", "500 of 1,000, 50/s, 0:00:10 left"]
