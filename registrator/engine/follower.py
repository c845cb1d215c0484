"""Follows the engine: waits until it answers, then passes its events on, over all reconnects."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from registrator.engine.client import DockerEngine, Engine
from registrator.model import EngineUnavailable, Event
from registrator.status.board import Board
from registrator.status.instruments import ACTIONS, OTHER
from registrator.system.alarm import Alarm
from registrator.system.retry import engine_backoff, retry

log = logging.getLogger("registrator.engine")

# Seconds that a thread may act on an event before the other one reads on. To wake that one at once
# would delay the first one, by milliseconds while both cores are busy.
RELIEF = 0.02
AT_ONCE = 1e-9

# For so many seconds a new stream may tell of what happened before.
REPEATS = 1.0


class Listener(Protocol):
    """The receiver of events, such as the inventory."""

    def mark(self, event: Event) -> bool: ...  # noqa: D102
    def events_connected(self) -> None: ...  # noqa: D102
    def events_lost(self, reason: str) -> None: ...  # noqa: D102


class Follower:
    """Waits for one engine and reads its events until `stop` is set."""

    def __init__(self, engine: DockerEngine, board: Board, stop: threading.Event) -> None:
        self._engine = engine
        self._board = board
        self._report = board.engine
        self._stop = stop
        self._turn = threading.Lock()  # held by the thread that reads
        self._relief = Alarm()  # goes off if that thread is away for long
        self._stream: Iterator[Event | None] | None = None
        self._last: int | None = None  # the time of the last event
        self._failures = 0  # of the event stream, in a row
        self._began = 0.0  # of the event stream, by the monotonic clock
        self._unread = False  # whether the log tells of an event that cannot be read

    def await_engine(self) -> Engine | None:
        """Who the engine is, as soon as it answers. None if the agent ends before."""

        def failed(error: Exception) -> float:
            self._report.failed(f"none answers at {self._engine.address} ({error})")
            return self._report.waits(engine_backoff(self._report.row.failures))

        engine = retry(self._engine.identify, EngineUnavailable, failed, self._stop)
        if engine is not None:
            address = self._engine.address
            self._report.succeeded(address=address, version=engine.version)
            log.info("Docker engine %s at %s", engine.version, address)
        return engine

    def follow(self, listener: Listener, react: Callable[[], None]) -> None:
        """Tell the listener of each event, and of each beginning and end of the stream.

        The listener reports faults: it finds out whether the engine or only its stream is at fault.
        After each event that makes something due, this calls `react`. Two threads call this method.
        One reads, and the other one sleeps, until the first one has been in `react` for long.
        """

        def failed(error: Exception) -> float:
            self._failures += 1
            listener.events_lost(str(error))
            return engine_backoff(self._failures)

        reads = False

        def turns() -> None:
            nonlocal reads
            while not self._stop.is_set():
                reads = reads or self._turn.acquire(blocking=False)
                if reads:
                    self._read(listener, react)
                    reads = False
                else:
                    self._relief.wait()

        # Once for all turns: each call leaves a cycle of objects that lives long.
        retry(turns, EngineUnavailable, failed, self._stop)
        self._relief.set(AT_ONCE)

    def _read(self, listener: Listener, react: Callable[[], None]) -> None:
        """Read events, until the other thread has taken the turn.

        Raises `EngineUnavailable`, and keeps the turn then.
        """
        while True:
            event = self._next()
            if event is None:
                self._failures = 0
                self._began = time.monotonic()
                listener.events_connected()
                continue
            if not event.container_id and not self._unread:
                log.warning("an event cannot be read: listing all containers instead")
                self._unread = True
            self._last = event.time or self._last
            self._note(event)
            if listener.mark(event):
                self._relief.set(RELIEF)
                self._turn.release()
                react()
                if not self._turn.acquire(blocking=False):
                    return
                self._relief.set(0)

    def _note(self, event: Event) -> None:
        """Count and log an event, and note how late it came. A new stream repeats old ones."""
        action = event.action if event.action in ACTIONS else OTHER
        self._report.count("events", action)
        if container_id := event.container_id:
            facts = {"container_id": container_id}
            log.debug("container %s: event %s", container_id[:12], action, extra=facts)
        if event.time and time.monotonic() > self._began + REPEATS:
            self._board.event_lag = time.time() - event.time / 1e9

    def _next(self) -> Event | None:
        """The next event of the stream, which may be a new one. None if it begins."""
        if self._stop.is_set():
            raise EngineUnavailable("the agent ends")
        stream, self._stream = self._stream or self._engine.events(self._last), None
        try:
            event = next(stream)
        except StopIteration:
            raise EngineUnavailable("the event stream ended") from None
        self._stream = stream
        return event
