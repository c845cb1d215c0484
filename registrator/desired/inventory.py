"""Decides which container to inspect when, and publishes a `Snapshot` after each change.

The guarantees:

- An event is only a hint that a container may have changed. What counts is what an inspection
  says. So events may be missed, doubled or reordered.
- A container that is gone has no services. If a container cannot be inspected, the agent keeps
  what it knows of it and tries again. The others do not wait for it.
- The first snapshot follows a complete listing. Each snapshot says whether all of it is known.
- Long work is published in portions, so that registries and engine work at the same time. Until
  the last portion a snapshot is not `settled`: others may still claim the same ids and keys, so
  registries only add to what stands.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

from registrator.desired.containers import Containers
from registrator.desired.restart_loops import SETTLE
from registrator.desired.services import Rules
from registrator.desired.tasks import Hint, Task
from registrator.model import Container, EngineUnavailable, Event, LeftOut, Offer, Reason, Snapshot
from registrator.status.board import Board
from registrator.system.retry import engine_backoff, retry

log = logging.getLogger("registrator.inventory")

# Seconds until a container that could not be inspected is tried again. They double each time.
RETRY_FIRST, RETRY_MAX = 0.5, 30.0

# Seconds of inspections after which what is known is published. It doubles with each portion.
PORTION = 0.05

# Every so many seconds of silence the agent asks whether the engine still answers.
HEARTBEAT = 10.0


class Engine(Protocol):
    """The part of `DockerEngine` that an inventory needs."""

    def ping(self) -> None: ...  # noqa: D102 (as in DockerEngine)
    def running(self) -> dict[str, int]: ...  # noqa: D102
    def inspect(self, container_id: str) -> Container | None: ...  # noqa: D102
    def interrupt(self) -> None: ...  # noqa: D102


class EventsLost(EngineUnavailable):
    """The engine answers, but its event stream does not stand."""


class Inventory:
    """The containers of one engine. Any thread may call the methods that note something.

    One thread calls `run`, or `wait` and `step`, and with it `publish` for each new snapshot. With
    `keep_failed` the services of a container stay if it ended with an exit code of 1 to 127
    (``-deregister on-success``). `resync` is the time between two listings in seconds, 0 for never.
    """

    def __init__(
        self,
        engine: Engine,
        rules: Rules,
        publish: Callable[[Snapshot], None],
        *,
        keep_failed: bool = False,
        addresses: frozenset[str] = frozenset(),
        resync: float = 0,
        board: Board | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._containers = Containers(rules, addresses)
        self._publish = publish
        self._keep_failed = keep_failed
        self._resync = resync or math.inf
        self._board = board or Board()
        self._clock = clock
        self._noted = threading.Condition()
        self._tasks: dict[str, Task] = {}
        self._next_rules: tuple[Rules, frozenset[str]] | None = None
        self._listing_due = True
        self._next_listing = math.inf
        self._events_lost = ""
        self._listed: dict[str, int] = {}
        self._portion = PORTION
        self._snapshot: Snapshot | None = None

    def mark(self, event: Event) -> None:
        """Note that a container may have changed.

        A change of its networks matters only while it runs: an inspection during its start would
        wait until it has started, and hold up all others.
        """
        gone = event.action == "destroy" or (
            event.action == "die" and not self._keeps(event.exit_code)
        )
        with self._noted:
            task = self._tasks.setdefault(event.container_id, Task())
            if event.action in ("connect", "disconnect"):
                task.moved = True
            else:
                task.add(Hint(event.time, gone))
            if event.action == "start":
                task.loop.started(event.time / 1e9, self._clock())
            self._noted.notify()

    def _keeps(self, exit_code: int | None) -> bool:
        """Whether services outlive such an exit. An unknown code may be that of a failure."""
        return self._keep_failed and (exit_code is None or 0 < exit_code < 128)  # 128: a signal

    def use_rules(self, rules: Rules, addresses: frozenset[str]) -> None:
        """Make the services by other rules from the next step on."""
        with self._noted:
            self._next_rules = rules, addresses
        self.resync()

    def resync(self) -> None:
        """Have the engine listed in full by the next step."""
        with self._noted:
            self._listing_due = True
            self._noted.notify()

    def events_connected(self) -> None:
        """Note that the event stream stands. What happened before is found by a listing."""
        self._events_lost = ""
        self.resync()

    def events_lost(self, reason: str) -> None:
        """Note that the event stream does not stand. A listing shows whether the engine answers."""
        self._events_lost = reason
        self.resync()

    def run(self, stop: threading.Event) -> None:
        """Keep the snapshot up to date, and report on the engine, until `stop` is set."""
        report = self._board.engine

        def failed(error: Exception) -> float:
            report.failed(error)
            if not isinstance(error, EventsLost):
                self._engine.interrupt()
            return engine_backoff(report.row.failures)

        while not stop.is_set():
            retry(self._round, EngineUnavailable, failed, stop)

    def _round(self) -> None:
        if not self.wait(HEARTBEAT):
            self._engine.ping()
        self.step()
        if self._events_lost:
            raise EventsLost(self._events_lost)
        self._board.engine.succeeded()

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds, and return whether something was noted."""

        def noted() -> bool:
            return self._listing_due or any(t.hint or t.moved for t in self._tasks.values())

        with self._noted:
            due = min((task.retry_at for task in self._tasks.values()), default=math.inf)
            until_due = min(due, self._next_listing) - self._clock()
            return self._noted.wait_for(noted, max(0.0, min(timeout, until_due)))

    def step(self) -> None:
        """Do all that is due, and publish the snapshot if it is another one.

        Raises `EngineUnavailable` if the engine does not answer at all. Nothing is forgotten then,
        and the next step goes on.
        """
        with self._noted:
            rules, self._next_rules = self._next_rules, None
        if rules is not None:
            self._containers.use_rules(*rules)
        if self._listing_due or self._clock() >= self._next_listing:
            self._list()
        self._publish_news(settled=self._look())
        with self._noted:
            now = self._clock()
            self._tasks = {key: t for key, t in self._tasks.items() if not t.is_done(now)}

    def _list(self) -> None:
        """Note what a full listing shows to be new, changed or gone."""
        self._listing_due = False
        try:
            listed = self._engine.running()
        except EngineUnavailable:
            self._listing_due = True
            raise
        self._board.engine.count("listings")
        self._next_listing = self._clock() + self._resync
        with self._noted:
            for container_id, task in self._tasks.items():
                if task.uninspected and container_id not in listed:
                    task.left_out, task.retry_at = None, math.inf
            # One that could not be inspected has its own time to be tried again.
            known = self._containers.ids
            seen = known | {key for key, task in self._tasks.items() if task.uninspected}
            news = [
                key
                for key, digest in listed.items()
                if key not in seen or self._listed.get(key) != digest
            ]
            for container_id in (*news, *(known - listed.keys())):
                task = self._tasks.setdefault(container_id, Task())
                task.hint = task.hint or Hint()
        self._listed = listed

    def _look(self) -> bool:
        """Look at what has a hint for one portion of time. Returns whether that was all of it."""
        end = self._clock() + self._portion
        for container_id in self._by_urgency():
            if self._clock() > end:
                self._portion *= 2
                return False
            with self._noted:
                task = self._tasks[container_id]
                hint, task.hint = task.hint or Hint(), None
                calm_at = task.loop.calm_at(self._clock())
            try:
                self._look_at(container_id, task, hint, calm_at)
            except EngineUnavailable:
                with self._noted:
                    task.hint = hint.then(task.hint)
                raise
        self._portion = PORTION
        return True

    def _by_urgency(self) -> list[str]:
        """The containers to look at now: first ends, which need no inspection, then by event.

        What only a listing told comes last. If nothing else is to be done, one container that
        could not be inspected is tried again. It may hang again, so none has to wait for several.
        """
        with self._noted:
            for container_id, task in self._tasks.items():
                # An unknown container has the hint of its start, or its start is still to come.
                if task.moved and container_id in self._containers.ids:
                    task.hint = task.hint or Hint()
                task.moved = False
            hints = {key: task.hint for key, task in self._tasks.items() if task.hint}
            if not hints:
                due = [(task.retry_at, key) for key, task in self._tasks.items()]
                return [key for when, key in sorted(due)[:1] if when <= self._clock()]
        return sorted(hints, key=lambda key: (not hints[key].gone, hints[key].time == 0))

    def _look_at(self, container_id: str, task: Task, hint: Hint, calm_at: float) -> None:
        if calm_at > self._clock():
            self._leave_alone(container_id, task, calm_at)
        elif hint.gone and not self._containers.started_after(container_id, hint.time):
            self._settle(container_id, task, None)
        else:
            # Also for an end before the start: an old event again, or the clock was set back.
            try:
                container = self._engine.inspect(container_id)
            except EngineUnavailable as error:
                self._put_off(container_id, task, error)
            else:
                self._board.engine.count("inspections")
                self._settle(container_id, task, container)

    def _settle(self, container_id: str, task: Task, container: Container | None) -> None:
        """Take in what a container is now."""
        task.retry_at, task.wait, task.left_out = math.inf, 0.0, None
        if container is not None and container.exit_code is not None:
            if self._keeps(container.exit_code):
                return
            container = None
        self._containers.put(container_id, container)

    def _leave_alone(self, container_id: str, task: Task, calm_at: float) -> None:
        """Take away the services of a container in a restart loop, and look again later."""
        if task.left_out is None or task.left_out.reason is not Reason.RESTART_LOOP:
            log.warning(
                "container %s is in a restart loop: left out until %.0f s pass without a start",
                container_id[:12], SETTLE,
            )  # fmt: skip
        task.retry_at, task.left_out = calm_at, LeftOut(None, Reason.RESTART_LOOP)
        self._containers.put(container_id, None)

    def _put_off(self, container_id: str, task: Task, error: EngineUnavailable) -> None:
        """Try a container again later. Raises if the engine is at fault, not the container."""
        self._engine.ping()
        task.wait = min(RETRY_MAX, 2 * task.wait or RETRY_FIRST)
        task.retry_at = self._clock() + task.wait
        if container_id not in self._containers.ids:
            task.left_out = LeftOut(None, Reason.NOT_INSPECTED, f"it cannot be inspected: {error}")
        log.warning(
            "container %s cannot be inspected (%s): its services stay, next attempt in %.1f s",
            container_id[:12], error, task.wait,
        )  # fmt: skip

    def _publish_news(self, *, settled: bool) -> None:
        """Publish what is known, if it is another snapshot, and tell the board."""
        with self._noted:
            waiting = {key for key, task in self._tasks.items() if task.hint}
            apart = {key: task.left_out for key, task in self._tasks.items() if task.left_out}
            complete = settled and not any(task.uninspected for task in self._tasks.values())
        before = self._snapshot
        changed = self._containers.derive(waiting)
        if changed or before is None or (before.complete, before.settled) != (complete, settled):
            snapshot = self._containers.snapshot(complete=complete, settled=settled)
            if snapshot != before:
                self._snapshot = snapshot
                self._publish(snapshot)
        lone = {key: Offer(left_out=(why,)) for key, why in apart.items()}
        self._board.offers = {**self._containers.offers, **lone}
