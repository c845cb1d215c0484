"""The follower: it waits for the engine, and tells of events over all reconnects."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.wait import until

from registrator.engine import follower as follower_module
from registrator.engine.client import Engine
from registrator.engine.follower import Follower
from registrator.model import EngineUnavailable, Event
from registrator.status.board import Board
from registrator.system import retry

ENGINE = Engine("id", "name", "20.10")


class Streams:
    """An engine whose answers are given; a stream is a list of events, or an error at its end."""

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


def test_waits_until_the_engine_answers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    board, error = Board(), EngineUnavailable("Connection refused")
    found = follower(Streams(error, error, ENGINE), board, threading.Event()).await_engine()
    assert found == ENGINE
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
    """A stream to which the test adds events, and a listener that is held up by the first one."""

    def __init__(self) -> None:
        self.events_to_come: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.opened = 0
        self.marked: list[str] = []
        self.held, self.free = threading.Event(), threading.Event()

    def events(self, since: int | None) -> Iterator[Event | None]:
        self.opened += 1
        yield None
        while (event := self.events_to_come.get()) is not None:
            yield event

    def mark(self, event: Event) -> bool:
        self.marked.append(event.action)
        return event.action == "start"

    def react(self) -> None:
        self.held.set()
        assert self.free.wait(60)

    def events_connected(self) -> None:
        pass

    def events_lost(self, reason: str) -> None:
        pass


def test_while_one_thread_acts_on_an_event_another_one_reads_on() -> None:
    live, stop = Live(), threading.Event()
    made = Follower(live, Board(), stop)  # type: ignore[arg-type]
    threads = [threading.Thread(target=made.follow, args=(live, live.react)) for _ in range(2)]
    for thread in threads:
        thread.start()
    live.events_to_come.put(Event("a", "start", 7))
    assert live.held.wait(60)
    for number in range(3):
        live.events_to_come.put(Event("a", "die", 8 + number))
    until(lambda: len(live.marked) == 4, "the events that came meanwhile")
    live.free.set()
    live.events_to_come.put(Event("a", "destroy", 11))
    until(lambda: len(live.marked) == 5, "the last event")
    assert live.marked == ["start", "die", "die", "die", "destroy"], "in order, each once"
    assert live.opened == 1, "both read one stream"
    stop.set()
    live.events_to_come.put(None)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
