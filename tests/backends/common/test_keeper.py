"""The thread that keeps entries alive while the reconciler is busy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.wait import until

from registrator.backend import SessionLost, Unavailable
from registrator.backends.common.keeper import Keeper

Make = Callable[..., Keeper]


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:

        def make(
            ttl: float,
            refresh: float,
            beat: Callable[[], None],
            wake: Callable[[], None] = lambda: None,
        ) -> Keeper:
            keeper = Keeper(ttl, refresh, beat, wake)
            stack.callback(keeper.stop)
            return keeper

        yield make


def threads() -> int:
    return sum(each.name == "keeper" for each in threading.enumerate())


def test_steps_in_again_and_again_while_nobody_else_keeps_alive(make: Make) -> None:
    beats: list[None] = []
    make(0.4, 0.1, lambda: beats.append(None)).kept()
    until(lambda: len(beats) > 2, "three beats")


def test_stays_quiet_while_somebody_else_keeps_alive(make: Make) -> None:
    beats: list[None] = []
    keeper = make(2000, 1000, lambda: beats.append(None))
    keeper.kept()
    keeper.kept()
    assert (beats, threads()) == ([], 1)


def test_tries_again_soon_after_a_failure(make: Make) -> None:
    beats: list[None] = []

    def beat() -> None:
        beats.append(None)
        raise Unavailable("gone")

    make(0.4, 0.1, beat).kept()
    until(lambda: len(beats) > 2, "three attempts")


def test_wakes_the_reconciler_when_the_session_is_lost(make: Make) -> None:
    woken = threading.Event()

    def beat() -> None:
        raise SessionLost("gone")

    make(0.4, 0.1, beat, woken.set).kept()
    assert woken.wait(60)


def test_ends_when_told_and_begins_again(make: Make) -> None:
    beats: list[None] = []
    keeper = make(0.4, 0.1, lambda: beats.append(None))
    for _ in range(2):
        beats.clear()
        keeper.kept()
        until(lambda: beats, "a beat")
        keeper.stop()
        until(lambda: not threads(), "the thread's end")


def test_does_nothing_without_a_time_to_live(make: Make) -> None:
    make(0, 0, lambda: None).kept()
    assert not threads()
