"""utils/timers.py: what is due when, by clocks that the tests turn."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from utils.errors import SettingError
from utils.timers import BatchTimer, CheckpointTimer, Deadline, StepTimer, parse_deadline, seconds_since_start


class FakeClock:
    """A clock that shows `now`."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_deadlines_are_times() -> None:
    now = datetime(2026, 11, 3, 12, 0)
    assert parse_deadline("17:30", now) == datetime(2026, 11, 3, 17, 30)
    assert parse_deadline("11:00", now) == datetime(2026, 11, 4, 11, 0)
    assert parse_deadline("2026-11-05T01:02", now) == datetime(2026, 11, 5, 1, 2)
    utc = parse_deadline("2026-11-05T01:02+00:00", now)
    assert utc.tzinfo is None and utc.timestamp() == datetime(2026, 11, 5, 1, 2, tzinfo=UTC).timestamp()
    with pytest.raises(SettingError, match="deadline=soon"):
        parse_deadline("soon", now)


def test_a_deadline_is_made_of_settings() -> None:
    assert Deadline.from_settings(None, None) is None
    assert Deadline.from_settings(None, "2999-11-03T17:30Z") is not None
    in_ten_minutes = Deadline.from_settings(10, None)
    assert in_ten_minutes is not None
    assert in_ten_minutes.seconds_left() + seconds_since_start() == pytest.approx(600, abs=5)
    with pytest.raises(SettingError, match="deadline=2020-01-01T00:00 is past"):
        Deadline.from_settings(None, "2020-01-01T00:00")


def test_the_last_step_ends_in_time() -> None:
    """Steps of 2 s after one of 30 s; seven more are made once it is known."""
    clock = FakeClock()
    timer, endless, known_at = StepTimer(100, ahead=7, clock=clock), StepTimer(None, ahead=7, clock=clock), None
    for step in range(60):
        clock.now += 30 if step == 0 else 2
        assert not endless.is_up()
        if timer.is_up() and known_at is None:
            known_at = clock.now
    assert known_at == 88  # 86 + 7 * 2 is in time


def test_steps_that_compile_are_left_out_of_the_average() -> None:
    clock = FakeClock()
    timer, up = StepTimer(100, ahead=10, clock=clock), []
    for seconds, compiled in ((1, True), (1, False), (40, True), (1, False), (1, False)):
        clock.now += seconds
        up.append(timer.is_up(compiled))
    assert up == [False] * 5  # an average with the long step would say that ten more last until 44 + 88 s


def test_the_last_batch_ends_in_time() -> None:
    """Two batches as long as the longest must fit; what is between two batches does not count."""
    clock = FakeClock()
    timer = BatchTimer(100, longest=5, clock=clock)
    clock.now = 20
    assert not timer.is_up()  # the longest takes 20 s now: 20 + 40
    clock.now = 50
    timer.restart()
    clock.now = 60
    assert not timer.is_up()  # 60 + 40 is in time
    clock.now = 61
    assert timer.is_up()
    assert not BatchTimer(None, longest=1e9, clock=clock).is_up()


def test_checkpoints_are_due_every_some_minutes() -> None:
    clock = FakeClock()
    timer, never, due = CheckpointTimer(2, clock=clock), CheckpointTimer(None, clock=clock), []
    for _ in range(8):
        clock.now += 50
        due.append(timer.is_due(timer.count()))
        assert not never.is_due(never.count())
    assert due == [False, False, True, False, False, True, False, False]


def test_a_count_that_arrives_late_is_due_once() -> None:
    """Ranks other than 0 only learn the counts."""
    timer = CheckpointTimer(2, clock=FakeClock())
    assert [timer.is_due(count) for count in (0, 0, 1, 1, 3, 3)] == [False, False, True, False, True, False]
