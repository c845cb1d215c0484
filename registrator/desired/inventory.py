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

from registrator.desired.agenda import Agenda
from registrator.desired.containers import Containers
from registrator.desired.inspections import Engine, Inspections
from registrator.desired.rules import Rules
from registrator.desired.tasks import Hint, Task
from registrator.desired.vanished import Doubt
from registrator.model import EngineUnavailable, Event, Snapshot
from registrator.status.board import Board
from registrator.system.retry import engine_backoff, retry

Publish = Callable[[Snapshot], None]

# Seconds of inspections after which what is known is published. It doubles with each portion.
PORTION = 0.05

# Every so many seconds of silence the agent asks whether the engine still answers.
HEARTBEAT = 10.0


class EventsLost(EngineUnavailable):
    """The engine answers, but its event stream does not stand."""


class Inventory:
    """The containers of one engine. Any thread may call the methods that note something.

    One thread calls `run`, or `wait` and `step`, and with it `publish` for each new snapshot. Any
    thread may call `step_here`: a step is done by one thread at a time. With
    `keep_failed` the services of a container stay if it ended with an exit code of 1 to 127
    (``-deregister on-success``). `resync` is the time between two listings in seconds, 0 for never.
    """

    def __init__(
        self,
        engine: Engine,
        rules: Rules,
        publish: Publish,
        *,
        keep_failed: bool = False,
        addresses: frozenset[str] = frozenset(),
        resync: float = 0,
        board: Board | None = None,
        clock: Callable[[], float] = time.monotonic,
        lanes: Executor | None = None,
    ) -> None:
        self._engine = engine
        self._containers = Containers(rules, addresses, clock)
        self._publish = publish
        self._keep_failed = keep_failed
        self._resync = resync or math.inf
        self._board = board or Board()
        self._clock = clock
        self._agenda = Agenda(clock)
        self._turn = threading.Lock()  # held by the thread that does a step
        wake, report = self._agenda.wake, self._board.engine
        self._inspections = Inspections(
            engine, self._containers, report, self._keeps, wake, clock, lanes
        )
        self._next_rules: tuple[Rules, frozenset[str]] | None = None
        self._events_lost = ""
        self._listed: dict[str, int] = {}
        self._doubt = Doubt()
        self._portion = PORTION
        self._snapshot: Snapshot | None = None

    def mark(self, event: Event) -> bool:
        """Note that a container may have changed. If that is to be looked at now, return True.

        The caller then calls `step_here`, since this wakes no thread. A change of its networks
        matters only while it runs: an inspection during its start would wait until it has started.
        An event without a container is a hint to list all of them.
        """
        if not event.container_id:
            self._agenda.listing_due = True
            return True
        if event.action in ("connect", "disconnect"):
            self._agenda.moved(event.container_id)
            # An unknown one waits for the next step. A step now would delay a write.
            return event.container_id in self._containers.ids
        if event.action == "kill":
            return self._agenda.killed(event.container_id, event.signal, event.time)
        idle = self._agenda.is_idle(event.container_id)
        if idle and self._containers.has_health(event.container_id, event.health):
            return False  # Podman tells of each probe.
        ended = event.action == "die" and not self._keeps(event.exit_code)
        self._agenda.add(event.container_id, Hint(event.time, ended or event.action == "destroy"))
        if event.action == "start":
            self._agenda.started(event.container_id, event.time / 1e9)
        return True

    def _keeps(self, exit_code: int | None) -> bool:
        """Whether services outlive such an exit. An unknown code may be that of a failure."""
        return self._keep_failed and (exit_code is None or 0 < exit_code < 128)  # 128: a signal

    def use_rules(self, rules: Rules, addresses: frozenset[str]) -> None:
        """Make the services by other rules from the next step on."""
        with self._agenda.lock:
            self._next_rules = rules, addresses
        self.resync()

    def resync(self) -> None:
        """Have the engine listed in full by the next step."""
        self._agenda.listing_due = True
        self._agenda.wake()

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
            with self._turn:
                report.failed(error)
            if not isinstance(error, EventsLost):
                self._engine.interrupt()
            return report.waits(engine_backoff(report.row.failures))

        def rounds() -> None:
            while not stop.is_set():
                self._round()

        retry(rounds, EngineUnavailable, failed, stop)

    def _round(self) -> None:
        if not self.wait(HEARTBEAT):
            self._engine.ping()
        with self._turn:
            self.step()
            if self._events_lost:
                raise EventsLost(self._events_lost)
            self._board.engine.succeeded()
        self._agenda.forget_starts()

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds, and return whether something was noted."""
        return self._agenda.wait(timeout)

    def step_here(self, publish: Publish) -> None:
        """Do in the calling thread what is marked, if the engine is well and nothing else is due.

        Otherwise the thread of `run` does it. That thread also reports what fails. A new snapshot
        goes to `publish`.
        """
        if self._turn.acquire(blocking=False):
            try:
                if self._is_calm():
                    self._step(publish)
            except EngineUnavailable:
                pass  # The marks stay.
            finally:
                self._turn.release()
        self._agenda.wake()

    def _is_calm(self) -> bool:
        """Whether the engine is well, and nothing but marked containers is due."""
        listing = self._agenda.listing_due or self._agenda.next_listing <= self._clock()
        return not (listing or self._next_rules or self._board.engine.row.failures)

    def step(self) -> None:
        """Do all that is due, and publish the snapshot if it is another one.

        Raises `EngineUnavailable` if the engine does not answer at all. Nothing is forgotten then,
        and the next step goes on.
        """
        self._step(self._publish)

    def _step(self, publish: Publish) -> None:
        with self._agenda.lock:
            rules, self._next_rules = self._next_rules, None
        if rules is not None:
            self._containers.use_rules(*rules)
        try:
            self._agenda.take_kills(self._containers.told)
            self._take_ends()
            if self._agenda.listing_due or self._clock() >= self._agenda.next_listing:
                self._list()
            settled = self._look()
        except EngineUnavailable:
            # The removal of what is known to have ended does not wait for the engine.
            if before := self._snapshot:
                self._publish_news(publish, settled=before.settled, complete=before.complete)
            raise
        self._publish_news(publish, settled=settled)
        self._agenda.forget_done()

    def _take_ends(self) -> None:
        """Take in the ends that are known. They need no engine, and are older than a listing."""
        for container_id, hint in self._agenda.hints().items():
            if self._inspections.ends(container_id, hint):
                self._take(container_id, self._agenda.tasks[container_id])

    def _list(self) -> None:
        """Note what a full listing shows to be new, changed or gone."""
        agenda = self._agenda
        agenda.listing_due = False
        try:
            listed = self._engine.running()
        except EngineUnavailable:
            agenda.listing_due = True
            raise
        now = self._clock()
        known = self._containers.ids
        until = self._doubt.until(known - self._inspections.kept, listed.keys(), now)
        agenda.next_listing = min(now + self._resync, until)
        gone = set() if until < math.inf else known - listed.keys()
        with agenda.lock:
            for container_id, task in agenda.tasks.items():
                if task.uninspected and container_id not in listed:
                    task.left_out, task.retry_at, task.asked = None, math.inf, None
                elif container_id in listed and task.hint is not None and task.hint.gone:
                    # It was told while the engine was listing. Only an inspection knows.
                    task.hint = Hint(task.hint.time)
            # One that could not be inspected has its own time to be tried again. One that is being
            # stopped may have started anew: its row would be the same.
            uninspected = {key for key, task in agenda.tasks.items() if task.uninspected}
            seen = (known - self._containers.stopping) | uninspected
            news = [
                key
                for key, digest in listed.items()
                if key not in seen or self._listed.get(key) != digest
            ]
            for container_id in (*news, *gone):
                task = agenda.tasks.setdefault(container_id, Task())
                task.hint = task.hint or Hint()
        self._listed = listed

    def _look(self) -> bool:
        """Look at what is due for one portion of time. Returns whether that was all of it."""
        end = self._clock() + self._portion
        with self._agenda.lock:
            asked = [(key, task) for key, task in self._agenda.tasks.items() if task.asked]
        for container_id, task in asked:
            if task.asked and task.asked.done():
                self._inspections.take_answer(container_id, task)
        for container_id in self._agenda.by_urgency(self._containers.ids):
            if self._clock() > end:
                self._portion *= 2
                return False
            self._take(container_id, self._agenda.tasks[container_id])
        return True

    def _take(self, container_id: str, task: Task) -> None:
        """Look at one container. Its hint stays if the engine is at fault."""
        with self._agenda.lock:
            hint, task.hint = task.hint or Hint(), None
            calm_at = self._agenda.calm_at(container_id)
            if task.asked is not None and not self._inspections.ends(container_id, hint):
                # The answer to come may be older than the hint.
                task.hint = Hint(hint.time)
                return
        try:
            self._inspections.look_at(container_id, task, hint, calm_at)
        except EngineUnavailable:
            with self._agenda.lock:
                task.hint = hint.then(task.hint)
            raise

    def _publish_news(
        self, publish: Publish, *, settled: bool, complete: bool | None = None
    ) -> None:
        """Publish what is known, if it is another snapshot, and tell the board."""
        with self._agenda.lock:
            waiting = {key for key, task in self._agenda.tasks.items() if task.waits}
            received = self._agenda.take_received()
            lone = {key: task.offer for key, task in self._agenda.tasks.items() if task.left_out}
            if complete is None:
                complete = settled and not any(
                    task.uninspected for task in self._agenda.tasks.values()
                )
        before = self._snapshot
        changed = self._containers.derive(waiting)
        if changed or before is None or (before.complete, before.settled) != (complete, settled):
            snapshot = self._containers.snapshot(received, complete=complete, settled=settled)
            if snapshot != before:
                self._snapshot = snapshot
                publish(snapshot)
        offers = ChainMap(lone, self._containers.offers)
        self._board.tell_containers(self._snapshot, offers, waiting=len(waiting))
