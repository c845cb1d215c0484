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

import math
import threading
import time
from collections import ChainMap
from collections.abc import Callable
from concurrent.futures import Executor

from registrator.desired.containers import Containers
from registrator.desired.inspections import Engine, Inspections
from registrator.desired.services import Rules
from registrator.desired.tasks import Hint, Task
from registrator.desired.vanished import Doubt
from registrator.model import EngineUnavailable, Event, Offer, Snapshot
from registrator.status.board import Board
from registrator.system.retry import engine_backoff, retry

# Seconds of inspections after which what is known is published. It doubles with each portion.
PORTION = 0.05

# Every so many seconds of silence the agent asks whether the engine still answers.
HEARTBEAT = 10.0


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
        lanes: Executor | None = None,
    ) -> None:
        self._engine = engine
        self._containers = Containers(rules, addresses)
        self._publish = publish
        self._keep_failed = keep_failed
        self._resync = resync or math.inf
        self._board = board or Board()
        self._clock = clock
        self._noted = threading.Condition()
        self._inspections = Inspections(
            engine, self._containers, self._board.engine, self._keeps, self._wake, clock, lanes
        )
        self._tasks: dict[str, Task] = {}
        self._next_rules: tuple[Rules, frozenset[str]] | None = None
        self._listing_due = True
        self._next_listing = math.inf
        self._events_lost = ""
        self._listed: dict[str, int] = {}
        self._doubt = Doubt()
        self._portion = PORTION
        self._snapshot: Snapshot | None = None

    def mark(self, event: Event) -> None:
        """Note that a container may have changed.

        A change of its networks matters only while it runs: an inspection during its start would
        wait until it has started. An event without a container is a hint to list all of them.
        """
        if not event.container_id:
            self.resync()
            return
        ended = event.action == "die" and not self._keeps(event.exit_code)
        gone = ended or event.action == "destroy"
        with self._noted:
            task = self._tasks.setdefault(event.container_id, Task())
            if event.action in ("connect", "disconnect"):
                task.moved = True
                if event.container_id not in self._containers.ids:
                    # It waits for the next step. To wake the thread now would delay a write.
                    return
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

    def _wake(self) -> None:
        with self._noted:
            self._noted.notify()

    def resync(self) -> None:
        """Have the engine listed in full by the next step."""
        self._listing_due = True
        self._wake()

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

        def rounds() -> None:
            while not stop.is_set():
                self._round()

        retry(rounds, EngineUnavailable, failed, stop)

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
            return self._listing_due or any(t.is_due or t.moved for t in self._tasks.values())

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
        try:
            self._take_ends()
            if self._listing_due or self._clock() >= self._next_listing:
                self._list()
            settled = self._look()
        except EngineUnavailable:
            # The removal of what is known to have ended does not wait for the engine.
            if before := self._snapshot:
                self._publish_news(settled=before.settled, complete=before.complete)
            raise
        self._publish_news(settled=settled)
        with self._noted:
            now = self._clock()
            self._tasks = {key: t for key, t in self._tasks.items() if not t.is_done(now)}

    def _take_ends(self) -> None:
        """Take in the ends that are known. They need no engine, and are older than a listing."""
        with self._noted:
            hints = {key: task.hint for key, task in self._tasks.items() if task.hint}
        for container_id, hint in hints.items():
            if self._inspections.ends(container_id, hint):
                self._take(container_id, self._tasks[container_id])

    def _list(self) -> None:
        """Note what a full listing shows to be new, changed or gone."""
        self._listing_due = False
        try:
            listed = self._engine.running()
        except EngineUnavailable:
            self._listing_due = True
            raise
        self._board.engine.count("listings")
        now = self._clock()
        known = self._containers.ids
        until = self._doubt.until(known - self._inspections.kept, listed.keys(), now)
        self._next_listing = min(now + self._resync, until)
        gone = set() if until < math.inf else known - listed.keys()
        with self._noted:
            for container_id, task in self._tasks.items():
                if task.uninspected and container_id not in listed:
                    task.left_out, task.retry_at, task.asked = None, math.inf, None
                elif container_id in listed and task.hint is not None and task.hint.gone:
                    # It was told while the engine was listing. Only an inspection knows.
                    task.hint = Hint(task.hint.time)
            # One that could not be inspected has its own time to be tried again.
            seen = known | {key for key, task in self._tasks.items() if task.uninspected}
            news = [
                key
                for key, digest in listed.items()
                if key not in seen or self._listed.get(key) != digest
            ]
            for container_id in (*news, *gone):
                task = self._tasks.setdefault(container_id, Task())
                task.hint = task.hint or Hint()
        self._listed = listed

    def _look(self) -> bool:
        """Look at what is due for one portion of time. Returns whether that was all of it."""
        end = self._clock() + self._portion
        with self._noted:
            asked = [(key, task) for key, task in self._tasks.items() if task.asked]
        for container_id, task in asked:
            if task.asked and task.asked.done():
                self._inspections.take_answer(container_id, task)
        for container_id in self._by_urgency():
            if self._clock() > end:
                self._portion *= 2
                return False
            self._take(container_id, self._tasks[container_id])
        return True

    def _by_urgency(self) -> list[str]:
        """The containers to look at now: first those of which an event told.

        What only a listing told comes next. Then come those that were slow, since nobody waits for
        them. If nothing else is to be done, one that could not be inspected is tried again. The
        ends that need no inspection are taken in already.
        """
        with self._noted:
            for container_id, task in self._tasks.items():
                # An unknown container has the hint of its start, or its start is still to come.
                if task.moved and container_id in self._containers.ids:
                    task.hint = task.hint or Hint()
                task.moved = False
            hints = {k: t.hint for k, t in self._tasks.items() if t.hint and t.hint_counts}
            now = self._clock()
            due = sorted((t.retry_at, key) for key, t in self._tasks.items() if t.retry_at <= now)
        again = [key for _, key in due if key not in hints]
        slow = [key for key in again if self._tasks[key].slow]
        first = sorted(hints, key=lambda key: hints[key].time == 0)
        return first + slow if first or slow else again[:1]

    def _take(self, container_id: str, task: Task) -> None:
        """Look at one container. Its hint stays if the engine is at fault."""
        with self._noted:
            hint, task.hint = task.hint or Hint(), None
            calm_at = task.loop.calm_at(self._clock())
            if task.asked is not None and not self._inspections.ends(container_id, hint):
                # The answer to come may be older than the hint.
                task.hint = Hint(hint.time)
                return
        try:
            self._inspections.look_at(container_id, task, hint, calm_at)
        except EngineUnavailable:
            with self._noted:
                task.hint = hint.then(task.hint)
            raise

    def _publish_news(self, *, settled: bool, complete: bool | None = None) -> None:
        """Publish what is known, if it is another snapshot, and tell the board."""
        with self._noted:
            waiting = {key for key, task in self._tasks.items() if task.hint or task.asked}
            apart = {key: task.left_out for key, task in self._tasks.items() if task.left_out}
            if complete is None:
                complete = settled and not any(task.uninspected for task in self._tasks.values())
        before = self._snapshot
        changed = self._containers.derive(waiting)
        if changed or before is None or (before.complete, before.settled) != (complete, settled):
            snapshot = self._containers.snapshot(complete=complete, settled=settled)
            if snapshot != before:
                self._snapshot = snapshot
                self._publish(snapshot)
        lone = {key: Offer(left_out=(why,)) for key, why in apart.items()}
        self._board.offers = ChainMap(lone, self._containers.offers)
