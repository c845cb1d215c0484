"""The alarm: it goes off once, and not at all if it is set off before."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from support.wait import until

from registrator.system.alarm import Alarm


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    made = Alarm()
    yield made
    made.close()


def sleeper(alarm: Alarm) -> threading.Thread:
    """A thread that sleeps until the alarm goes off."""
    thread = threading.Thread(target=alarm.wait, daemon=True)
    thread.start()
    return thread


def test_it_wakes_one_thread_at_a_time(alarm: Alarm) -> None:
    sleepers = [sleeper(alarm), sleeper(alarm)]
    for left in (1, 0):
        alarm.set(0.001)
        until(lambda left=left: sum(s.is_alive() for s in sleepers) == left, "one wakes up")  # type: ignore[misc]


def test_one_that_is_set_off_wakes_nobody(alarm: Alarm) -> None:
    alarm.set(1e-9)
    alarm.set(0)
    sleeping = sleeper(alarm)
    assert sleeping.is_alive()
    alarm.set(1e-9)
    sleeping.join(60)
    assert not sleeping.is_alive()


def test_it_may_take_longer_than_a_second(alarm: Alarm) -> None:
    alarm.set(3600.5)
    sleeping = sleeper(alarm)
    assert sleeping.is_alive()
    alarm.set(1e-9)
    sleeping.join(60)
    assert not sleeping.is_alive()
