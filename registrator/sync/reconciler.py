"""One registry kept in step with what this host runs; the only place that tries again.

`Reconciler.step` does all that is due, once, and raises what the backend raises. `run` repeats it
for ever: it waits for a reason, and after a failure backs off and lists the registry anew, since
nothing is certain then. The operator reads when a fault began, its first and every tenth failure,
and when it is over.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import tenacity

from registrator.backend import Backend, BackendError, Rejected, SessionLost
from registrator.model import Actual, Entry, Identity, Mark, Plan, Service, Snapshot
from registrator.status.outage import Outage
from registrator.sync.plan import by_key, diff, is_ours
from registrator.system.retry import backoff
from registrator.uri import Address

log = logging.getLogger("registrator.reconciler")

# A write that timed out may be carried out later, when the server thaws: look again after this.
SECOND_LOOK = 2.0

# More changes than this at once are summed up in one line.
SINGLE_LINES = 20


class GaveUp(Exception):
    """The registry was not reached within ``-retry-attempts`` at start."""


class Written(NamedTuple):
    """How many entries a step registered and removed."""

    registered: int = 0
    removed: int = 0

    def __str__(self) -> str:
        return f"{self.registered} registered, {self.removed} removed"


class Reconciler:
    """Keeps one registry right.

    `publish`, `wake` and `hurry` may be called from any thread, `step` and `run` from one.
    `resync` is in seconds, 0 for never; `attempts` (-1 for no end) and `first_wait` (seconds) are
    those of ``-retry-attempts`` and ``-retry-interval``, and hold until the registry was reached.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[Callable[[], None]], Backend],
        identity: Identity,
        *,
        cleanup: bool = True,
        resync: float = 60,
        attempts: int = -1,
        first_wait: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._identity = identity
        self._cleanup = cleanup
        self._resync = resync or float("inf")
        self._attempts = attempts
        self._first_wait = first_wait
        self._clock = clock
        self._wakeup = threading.Event()
        self._hurry = threading.Event()
        self._latest: Snapshot | None = None
        self._done: Snapshot | None = None
        self._listing_due = True
        self._next_listing = float("inf")
        self._last_keepalive = clock()
        self._actual: dict[str, Actual] = {}
        self._entries: dict[str, Entry] = {}  # by service id
        self._wanted: set[str] = set()  # keys desired at some time and not known to be gone
        self._rejected: dict[str, tuple[str, str]] = {}  # key -> content, and why it is not taken
        self._problems: dict[str, str] = {}
        self._reached = False
        self._outage = Outage(name, log, clock)
        self._backend = make(self.wake)

    @property
    def right(self) -> bool:
        """Whether the last attempt at the registry succeeded, and wrote all that is desired."""
        return self._done is not None and self._done.settled and not self._outage.failures

    def publish(self, snapshot: Snapshot) -> None:
        """Take over the desired state."""
        self._latest = snapshot
        self._wakeup.set()

    def wake(self) -> None:
        """Have the registry listed and put right at once; during an outage, by the next attempt."""
        self._listing_due = True
        self._wakeup.set()

    def hurry(self) -> None:
        """As `wake`, and end the wait for the next attempt."""
        self.wake()
        self._hurry.set()

    def run(self, stop: threading.Event) -> None:
        """Keep the registry right until `stop` is set and `hurry` called; raises `GaveUp`."""
        try:
            while not stop.is_set():
                self._wakeup.clear()
                self._persist(stop)
                self._wakeup.wait(self._pause())
        finally:
            self._backend.close()

    def step(self) -> Written:
        """Do all that is due, once; raises what the backend raises."""
        snapshot = self._latest
        if snapshot is None:
            return Written()
        written = Written()
        try:
            self._keep_alive()
            listed = self._list_if_due()
            if listed or snapshot is not self._done:
                written = self._write(snapshot)
        except BackendError:
            self._listing_due = True
            raise
        self._done = snapshot
        self._reached = True
        return written

    def _keep_alive(self) -> None:
        interval = self._backend.keepalive_interval
        now = self._clock()
        if interval is not None and now >= self._last_keepalive + interval:
            self._backend.keepalive()
            self._last_keepalive = now

    def _list_if_due(self) -> bool:
        now = self._clock()
        by_time = now >= self._next_listing
        if not (self._listing_due or by_time):
            return False
        self._listing_due = False
        self._actual = dict(self._backend.list())
        if by_time:
            # After a failure, what is not there yet may still be written late.
            self._wanted &= self._actual.keys()
        self._rejected.clear()
        self._next_listing = now + self._resync * random.uniform(0.9, 1.1)
        return True

    def _write(self, snapshot: Snapshot) -> Written:
        desired, problems = self._desired(snapshot)
        self._wanted |= desired.keys()
        hostname, addresses = self._identity.hostname, snapshot.addresses

        def dangling(key: str, found: Actual) -> bool:
            due = key in self._wanted or (self._cleanup and snapshot.complete)
            return due and is_ours(found, hostname, addresses)

        plan = diff(desired, self._actual, dangling=dangling, addresses=addresses)
        if not snapshot.settled:
            missing = tuple(entry for entry in plan.register if entry.key not in self._actual)
            plan = Plan(missing, conflicts=plan.conflicts)
        written = self._apply(plan)
        stale = tuple(
            key
            for key in self._rejected.keys() & self._actual.keys() & desired.keys()
            if self._actual[key].mark is Mark.OURS
        )
        if stale:
            # What stands there is an older content that the rejected one was to replace.
            self._apply(Plan(deregister=stale))
        rejected = {key: reason for key, (_, reason) in self._rejected.items()}
        self._report(problems | dict(plan.conflicts) | rejected)
        return written

    def _desired(self, snapshot: Snapshot) -> tuple[dict[str, Entry], dict[str, str]]:
        """The entries to have, by key, and the services that cannot have one, with the reason.

        The latter by id and container, since there may be no entry that tells the container.
        """
        problems: dict[str, str] = {}
        entries: dict[str, Entry] = {}
        for service_id, service in snapshot.services.items():
            entry = self._entries.get(service_id)
            if entry is None or entry.service is not service:
                try:
                    entry = self._backend.entry(service)
                except Rejected as reason:
                    problems[_of_container(service_id, service)] = str(reason)
                    continue
            entries[service_id] = entry
        self._entries = entries
        desired, clashes = by_key(entries.values())
        for loser, winner in clashes:
            subject = _of_container(loser.service.id, loser.service)
            problems[subject] = f"{winner.service.id} has the same place, {winner.key}"
        for key, (content, _) in self._rejected.items():
            if key in desired and desired[key].content == content:
                del desired[key]
        return desired, problems

    def _apply(self, plan: Plan) -> Written:
        if not plan:
            return Written()
        started = self._clock()
        refused = self._backend.apply(plan)
        took = self._clock() - started
        registered = [entry for entry in plan.register if entry.key not in refused]
        removed = [key for key in plan.deregister if key not in refused]
        for entry in plan.register:
            if entry.key in refused:
                self._rejected[entry.key] = (entry.content, refused[entry.key])
        for entry in registered:
            service = entry.service
            self._actual[entry.key] = Actual(entry.content, id=service.id, address=service.address)
            self._rejected.pop(entry.key, None)
        for key in removed:
            self._actual.pop(key, None)
            self._wanted.discard(key)
        self._log_changes(registered, removed, took)
        return Written(len(registered), len(removed))

    def _log_changes(self, registered: list[Entry], removed: list[str], took: float) -> None:
        level = logging.INFO
        if len(registered) + len(removed) > SINGLE_LINES:
            log.info(
                "%s: %s in %.2f s", self.name, Written(len(registered), len(removed)), took
            )  # fmt: skip
            level = logging.DEBUG
        for entry in registered:
            service = entry.service
            log.log(
                level,
                "%s: registered %s as %s at %s (container %s)",
                self.name,
                service.name,
                service.id,
                Address(service.address, service.port),
                service.container_name,
            )
        for key in removed:
            log.log(level, "%s: removed %s", self.name, key)

    def _report(self, problems: Mapping[str, str]) -> None:
        """Warn of each problem once, for as long as it lasts."""
        news = {key: why for key, why in problems.items() if self._problems.get(key) != why}
        entries = by_key(self._entries.values())[0] if news else {}
        for subject, reason in news.items():
            if subject in entries:
                subject = _of_container(subject, entries[subject].service)
            log.warning("%s: %s is not registered: %s", self.name, subject, reason)
        self._problems = dict(problems)

    def _persist(self, stop: threading.Event) -> None:
        """One step, repeated until it succeeds or there is a reason to end."""
        spent: tenacity.stop.stop_base = tenacity.stop_when_event_set(stop)
        if not self._reached and self._attempts >= 0:
            spent = tenacity.stop_any(spent, tenacity.stop_after_attempt(self._attempts + 1))
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(BackendError),
            wait=self._wait,
            stop=spent,
            sleep=self._sleep,
            after=self._failed,
            reraise=True,
        )
        try:
            written = retrying(self.step)
        except BackendError as error:
            if not stop.is_set():
                raise GaveUp(f"{self.name}: {error}") from error
        else:
            if self._outage.over(written):
                self._next_listing = min(self._next_listing, self._clock() + SECOND_LOOK)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, SessionLost) and state.attempt_number == 1:
            return 0
        if self._reached:
            return backoff(state.attempt_number)
        return backoff(state.attempt_number, self._first_wait)

    def _sleep(self, seconds: float) -> None:
        self._hurry.wait(seconds)
        self._hurry.clear()

    def _failed(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._outage.failed(error, lost=isinstance(error, SessionLost))

    def _pause(self) -> float | None:
        """Seconds until the next thing is due by itself."""
        if self._latest is None:
            return None
        due = self._next_listing
        interval = self._backend.keepalive_interval
        if interval is not None:
            due = min(due, self._last_keepalive + interval)
        return None if due == float("inf") else max(0.0, due - self._clock())


def _of_container(name: str, service: Service) -> str:
    return f"{name} (container {service.container_name})"
