"""The follower: it waits for the engine, and tells of events over all reconnects."""

from __future__ import annotations

import gc
import logging
import queue
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import tenacity
from support.wait import until

from registrator.engine import follower as follower_module
from registrator.engine.client import Engine
from registrator.engine.follower import Follower
from registrator.model import EngineUnavailable, Event
from registrator.status.board import Board
from registrator.system import retry

ENGINE = Engine("id", "name", "20.10")


class Streams:
    """An engine whose answers are given. A stream is a list of events, or an error at its end."""

    address = "unix:///engine"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[int | None] = []

    def identify(self) -> Engine:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Engine)
        return answer

    def events(self, since: int | None) -> Iterator[Event | None]:
        self.asked.append(since)
        for item in self.answers.pop(0):
            if isinstance(item, Exception):
                raise item
            yield item


class Told:
    """A listener that notes what it is told, and ends the follower after so many faults."""

    def __init__(self, faults: int) -> None:
        self.lines: list[str] = []
        self.stop = threading.Event()
        self._faults = faults

    def mark(self, event: Event) -> bool:
        self.lines.append(event.action)
        return event.action != "connect"

    def react(self) -> None:
        self.lines.append("reaction")

    def events_connected(self) -> None:
        self.lines.append("connected")

    def events_lost(self, reason: str) -> None:
        self.lines.append(reason)
        self._faults -= 1
        if not self._faults:
            self.stop.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "MAX_ENGINE_WAIT", 0.001)


def follower(engine: Streams, board: Board, stop: threading.Event) -> Follower:
    return Follower(engine, board, stop)  # type: ignore[arg-type]


def test_waits_until_the_engine_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    board, error = Board(), EngineUnavailable("Connection refused")
    waits: list[float] = []

    def told(seconds: float) -> float:
        waits.append(seconds)
        return 0

    monkeypatch.setattr(board.engine, "waits", told)
    found = follower(Streams(error, error, ENGINE), board, threading.Event()).await_engine()
    assert found == ENGINE
    assert len(waits) == 2, "the board tells when the next attempt is due"
    assert (board.engine.row.version, board.engine.row.failures) == ("20.10", 0)
    first, over, who = caplog.messages
    assert first.startswith("Docker engine: none answers at unix:///engine (Connection refused)")
    assert over.startswith("Docker engine: recovered")
    assert who == "Docker engine 20.10 at unix:///engine"


def test_the_end_of_the_agent_ends_the_wait() -> None:
    stop = threading.Event()
    stop.set()
    assert follower(Streams(ENGINE), Board(), stop).await_engine() is None


def test_tells_of_events_over_reconnects_each_from_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[int] = []

    def no_wait(attempt: int) -> float:
        attempts.append(attempt)
        return 0

    monkeypatch.setattr(follower_module, "engine_backoff", no_wait)
    first = [None, Event("a", "start", 7), EngineUnavailable("broke off")]
    engine = Streams(first, [EngineUnavailable("refused")], [None, Event("a", "die", 9)])
    told = Told(faults=3)
    follower(engine, Board(), told.stop).follow(told, told.react)
    assert told.lines == [
        "connected", "start", "reaction", "broke off",
        "refused",
        "connected", "die", "reaction", "the event stream ended",
    ]  # fmt: skip
    assert engine.asked == [None, 7, 7]
    assert attempts == [1, 2, 1], "a stream that stood begins the waits anew"


def test_an_end_of_the_agent_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(faults=1)
    monkeypatch.setattr(told, "mark", lambda _: told.stop.set())
    broke = EngineUnavailable("broke off")
    follower(Streams([None, Event("a", "start", 7), broke]), Board(), told.stop).follow(
        told, told.react
    )
    assert told.lines == ["connected"]


def test_an_event_that_cannot_be_read_is_told_once_and_moves_no_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unread = Event("", "", 0)
    engine = Streams([None, Event("a", "start", 7), unread, unread], [None])
    told = Told(faults=2)
    follower(engine, Board(), told.stop).follow(told, told.react)
    assert engine.asked == [None, 7]
    assert caplog.messages == ["an event cannot be read: listing all containers instead"]


class Live:
    """A stream to which the test adds events, and the threads that follow it.

    The reaction to an event "hold" takes until `free` is set.
    """

    def __init__(self) -> None:
        self.coming: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.opened = 0
        self.marked: list[str] = []
        self.reacted: list[threading.Thread] = []
        self.held, self.free, self.stop = threading.Event(), threading.Event(), threading.Event()
        made = Follower(self, Board(), self.stop)  # type: ignore[arg-type]
        work = partial(made.follow, self, self.react)
        self.threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]

    def __enter__(self) -> Live:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.free.set()
        self.coming.put(None)
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()

    def tell(self, *actions: str) -> None:
        for action in actions:
            self.coming.put(Event("a", action, len(self.marked) + 1))

    def until(self, *actions: str) -> None:
        """Wait until these events were marked, all and in this order."""
        until(lambda: self.marked == [*actions], lambda: str(self.marked))

    def events(self, since: int | None) -> Iterator[Event | None]:
        self.opened += 1
        yield None
        while (event := self.coming.get()) is not None:
            yield event

    def mark(self, event: Event) -> bool:
        self.marked.append(event.action)
        return event.action != "connect"

    def react(self) -> None:
        self.reacted.append(threading.current_thread())
        if self.marked[-1] == "hold":
            self.held.set()
            assert self.free.wait(60)

    def events_connected(self) -> None:
        pass

    def events_lost(self, reason: str) -> None:
        pass


def test_while_one_thread_acts_on_an_event_for_long_another_one_reads_on() -> None:
    with Live() as live:
        live.tell("hold")
        assert live.held.wait(60)
        live.tell("start", "connect", "die")
        live.until("hold", "start", "connect", "die")
        live.free.set()
        live.tell("hold", "start")
        live.until("hold", "start", "connect", "die", "hold", "start")
    assert live.opened == 1, "both read one stream"


def change_places(live: Live, times: int) -> None:
    for _ in range(times):
        live.held.clear()
        live.free.clear()
        marked = list(live.marked)
        live.tell("hold")
        assert live.held.wait(60)
        live.tell("start")
        live.until(*marked, "hold", "start")
        live.free.set()


def test_the_threads_change_places_as_often_as_it_takes_long() -> None:
    with Live() as live:
        change_places(live, 5)
    assert live.opened == 1


def test_a_change_of_places_leaves_no_garbage() -> None:
    """Python would not look for it for hours, since few objects are new on a small host."""
    gc.collect()
    gc.disable()
    try:
        with Live() as live:
            change_places(live, 5)
            retries = [each for each in gc.get_objects() if isinstance(each, tenacity.Retrying)]
    finally:
        gc.enable()
    assert len(retries) <= len(live.threads)


def test_a_thread_that_is_done_soon_wakes_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """To wake it costs time while all cores are busy."""
    monkeypatch.setattr(follower_module, "RELIEF", 3600.0)
    with Live() as live:
        live.tell(*["start", "die"] * 50)
        live.until(*["start", "die"] * 50)
        until(lambda: len(live.reacted) == 100, "the last reaction")
    assert len(set(live.reacted)) == 1


def test_the_end_wakes_the_thread_that_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "RELIEF", 3600.0)
    with Live() as live:
        live.tell("start")
        live.until("start")


def test_each_event_counts_and_its_lag_is_told_but_not_that_of_repeated_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("registrator.engine.follower.time.time", lambda: now)
    board = Board()
    events = [Event("a", "start", 990 * 10**9), Event("a", "x\n", 990 * 10**9), Event("", "", 0)]
    told = Told(1)
    engine: Any = Streams([None, *events])
    Follower(engine, board, told.stop).follow(told, lambda: None)
    assert board.event_lag == 0
    counted = {k[1]: n for k, n in board.engine.counters.items() if k[0] == "events"}
    assert counted == {"start": 1, "other": 2}
    monkeypatch.setattr(follower_module, "REPEATS", -1.0)
    told = Told(1)
    engine = Streams([None, *events])
    Follower(engine, board, told.stop).follow(told, lambda: None)
    assert board.event_lag == 10
