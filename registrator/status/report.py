"""The reports that fill the board: each replaces its row, and logs what the operator must know.

Only one thread at a time writes a report. Any thread may read its `row` and its `counters`.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

from registrator.model import Entry, Problem, Reason, Service, Snapshot
from registrator.status.facts import Facts, of_reason, of_service
from registrator.status.instruments import OPERATION, OPERATIONS, VISIBLE, Histogram, Stopwatch
from registrator.status.rows import RegistryRow, Row
from registrator.uri import Address

R = TypeVar("R", bound=Row)
Clock = Callable[[], float]

# Entries that are removed: the service behind each, or its id if no more is known, by key.
Removed = Mapping[str, Service | str]

EXCLUDED = Problem(Reason.FILTERED, Reason.FILTERED.value)

# The log sums up more changes than this in one line.
MAX_SINGLE_LINES = 20

# So many events may wait to be visible. In a long outage the oldest are forgotten.
MAX_WAITING_EVENTS = 1000


class Report(Generic[R]):
    """The row and the counters of one thing, and the log lines about its outages.

    An outage is a series of failures. The log tells the first failure, every tenth, and the
    recovery. A counter starts at 0 and only grows. Its key is its name and the values of its
    labels.
    """

    # The events of an outage: its first failure, and the success that ends it.
    BEGAN, OVER = {"event": "engine_away"}, {"event": "engine_back"}

    def __init__(self, row: R, log: logging.Logger, clock: Clock = time.monotonic) -> None:
        self.row = row
        self.counters: dict[tuple[str, ...], float] = {}
        self._log = log
        self._clock = clock
        self._began = 0.0  # of the outage, by `clock`: the time of day may be set meanwhile

    def update(self, **changes: Any) -> None:
        """Replace the row by one with these fields changed."""
        self.row = replace(self.row, **changes)

    def count(self, *counter: str, by: float = 1) -> None:
        """Raise a counter."""
        self.counters[counter] = self.counters.get(counter, 0) + by

    @property
    def _facts(self) -> Facts:
        """The facts of every line of this report."""
        return {}

    def failed(self, reason: object, *, lost: bool = False, moved: bool = False) -> R:
        """Note a failed attempt. The text of `reason` must be fit for the log.

        If entries may be `lost` by it, the log tells it whatever its number. With `moved` they are
        missing at another server, which is in use now. Returns the new row.
        """
        failures, since = self.row.failures + 1, self.row.since
        facts = self._facts | {"attempt": failures}
        if failures == 1:
            self._began, since = self._clock(), time.time()
            facts |= self.BEGAN
        else:
            facts |= {"duration_seconds": self._clock() - self._began}
        if moved:
            facts |= {"event": "server_moved"}
        self.update(failures=failures, error=str(reason), since=since)
        self.count("failures", "session_lost" if lost else "unavailable")
        if lost:
            self._log.warning(
                "%s: %s; registering again what is missing", self.row.name, reason, extra=facts
            )
        elif failures == 1:
            self._log.warning("%s: %s; retrying", self.row.name, reason, extra=facts)
        elif failures % 10 == 0:
            self._log.warning(
                "%s: still failing after %.0f s and %d attempts: %s",
                self.row.name, self._clock() - self._began, failures, reason, extra=facts,
            )  # fmt: skip
        return self.row

    def waits(self, seconds: float) -> float:
        """Note that the next attempt follows in so many seconds, and return them."""
        self.update(next_attempt=time.time() + seconds)
        return seconds

    def succeeded(self, outcome: object = "", **changes: Any) -> bool:
        """Note a success, and change other fields of the row with it.

        Returns whether it ended an outage. The log then tells the `outcome` as well.
        """
        before, now = self.row, time.time()
        since = now if before.failures or not before.last_success else before.since
        self.update(
            failures=0, error="", since=since, last_success=now, next_attempt=0.0, **changes
        )
        if before.failures:
            lasted = self._clock() - self._began
            detail = f": {outcome}" if outcome else ""
            facts = self._facts | self.OVER
            facts |= {"attempt": before.failures, "duration_seconds": lasted}
            self._log.info("%s: recovered after %.1f s%s", before.name, lasted, detail, extra=facts)
        return before.failures > 0


class Written(NamedTuple):
    """How many entries a step registered and removed."""

    registered: int = 0
    removed: int = 0

    def __str__(self) -> str:
        return f"{self.registered} registered, {self.removed} removed"


class RegistryReport(Report[RegistryRow]):
    """The row and the counters of one registry, and the log lines about its services."""

    BEGAN, OVER = {"event": "outage_began"}, {"event": "outage_over"}

    def __init__(self, name: str, clock: Clock = time.monotonic) -> None:
        super().__init__(RegistryRow(name), logging.getLogger("registrator.reconciler"), clock)
        self._twins: set[str] = set()
        self._server = ""
        self.operations = Stopwatch(OPERATIONS, OPERATION, clock)
        self.event_to_visible = Histogram(VISIBLE)
        self._visible_until = 0.0  # when the last event came that is visible
        # The snapshot that is to be realised, and since when there is one that is not.
        self._wanted: tuple[Snapshot | None, float] = (None, clock())
        self._realised_at = 0.0

    @property
    def _facts(self) -> Facts:
        return {"registry": self.row.name, "server": self._server}

    def wants(self, snapshot: Snapshot) -> Snapshot:
        """Note that a snapshot is to be realised. Returns it with all events that it reflects.

        Those of an earlier snapshot that was never realised are among them.
        """
        before, since = self._wanted
        if snapshot is before:
            return snapshot
        if before is not None:
            waiting = [when for when in before.received if when > self._visible_until]
            received = (*waiting, *snapshot.received)[-MAX_WAITING_EVENTS:]
            if received != snapshot.received:
                snapshot = replace(snapshot, received=received)
            if before is self.row.realised and before.settled:
                since = self._clock()
        self._wanted = snapshot, since
        return snapshot

    @property
    def divergence(self) -> float:
        """For how many seconds the registry has not been known to be in step, or 0 if it is."""
        row, (snapshot, since), now = self.row, self._wanted, self._clock()
        if snapshot is not None and self._realised_at > since:
            # A busy host is hardly ever in step. Only the changes after that snapshot are missing.
            since = min((at for at in snapshot.received if at > self._visible_until), default=since)
        moments = [] if row.realised is snapshot and row.in_sync else [since]
        if row.failures:
            moments = [self._began] if row.realised is snapshot else [since, self._began]
        return max((now - each for each in moments), default=0.0)

    def _see_events(self, snapshot: Snapshot) -> None:
        """Measure how long the events took that are visible now for the first time."""
        now = self._clock()
        for when in snapshot.received:
            if when > self._visible_until:
                self.event_to_visible.observe(now - when)
        self._visible_until = max(self._visible_until, *snapshot.received, 0.0)

    def serves(self, server: str) -> None:
        """Note the server in use. Any thread may call it: the next success tells it."""
        if self._server and server != self._server:
            self.count("moves")
        self._server = server

    def twins(self, hosts: Collection[str]) -> None:
        """Note the other hosts whose entries carry our engine's id. The log tells each once."""
        for host in sorted(set(hosts) - self._twins):
            self._log.error(
                "%s: host %.80r has the same Docker engine id as this host, as cloned machines do; "
                "its entries stay; give one of the two a new id: stop its Docker, remove "
                "/var/lib/docker/engine-id and /etc/docker/key.json, and start Docker",
                self.row.name, host, extra=self._facts,
            )  # fmt: skip
            self._twins.add(host)

    def listed(self) -> None:
        """Note a listing."""
        self.update(last_listing=time.time())

    def plans(self, registering: Sequence[Entry], removing: Removed) -> None:
        """Note what is about to be written to the registry."""
        if not self._log.isEnabledFor(logging.DEBUG):
            return
        name = self.row.name
        for entry in registering:
            facts = self._facts | of_service(entry.service)
            self._log.debug("%s: %s is to be registered", name, entry.key, extra=facts)
        for key, service in removing.items():
            facts = self._facts | _of_removed(service)
            self._log.debug("%s: %s is to be removed", name, key, extra=facts)

    def wrote(
        self, registered: Sequence[Entry], removed: Removed, *, drift: bool, seconds: float
    ) -> Written:
        """Note the entries that a write registered, and those that it removed, in so many seconds.

        With `drift` the registry had changed, and not what is desired.
        """
        name, written = self.row.name, Written(len(registered), len(removed))
        cause = "drift" if drift else "change"
        self.count("writes", "register", cause, by=written.registered)
        self.count("writes", "remove", cause, by=written.removed)
        level = logging.INFO
        facts = self._facts | {"duration_seconds": seconds}
        if sum(written) > MAX_SINGLE_LINES:
            self._log.info("%s: %s in %.2f s", name, written, seconds, extra=facts)
            level = logging.DEBUG
        if self._log.isEnabledFor(level):
            facts |= {"latency_seconds": None if drift else self._latency()}
            self._tell_written(level, registered, removed, facts)
        return written

    def _tell_written(
        self, level: int, registered: Sequence[Entry], removed: Removed, facts: Facts
    ) -> None:
        """Log each entry of a write. All of them have these `facts`."""
        name = self.row.name
        for entry in registered:
            service = entry.service
            self._log.log(
                level,
                "%s: registered %s as %s at %s (container %s)%s",
                name, service.name, service.id, Address(service.address, service.port),
                service.container_name, f", {entry.status}" if entry.status else "",
                extra=facts | {"event": "registered"} | of_service(service),
            )  # fmt: skip
        for key, gone in removed.items():
            extra = facts | {"event": "removed"} | _of_removed(gone)
            self._log.log(level, "%s: removed %s", name, key, extra=extra)

    def _latency(self) -> float | None:
        """For how many seconds the oldest event has waited that is not visible yet."""
        snapshot, _ = self._wanted
        received = snapshot.received if snapshot is not None else ()
        waiting = [when for when in received if when > self._visible_until]
        return self._clock() - min(waiting) if waiting else None

    def realised(
        self, snapshot: Snapshot, problems: Mapping[str, Problem], outcome: object = ""
    ) -> bool:
        """Note that a snapshot is in the registry, all but the services with a problem.

        The log tells each of the `problems` (by service id) once, for as long as it lasts.
        Returns whether this ended an outage.
        """
        self._tell_excluded(snapshot)
        for service_id, problem in problems.items():
            if self.row.problems.get(service_id) != problem:
                level = logging.INFO if problem.reason is Reason.STARTING else logging.WARNING
                self._tell_missing(level, snapshot.services[service_id], problem)
        if snapshot.settled:
            self._see_events(snapshot)
            self._realised_at = self._clock()
        return self.succeeded(outcome, realised=snapshot, problems=problems, server=self._server)

    def _tell_missing(self, level: int, service: Service, problem: Problem) -> None:
        """Log a service that is not registered, and why."""
        self._log.log(
            level,
            "%s: %s (container %s) is not registered: %s",
            self.row.name, service.id, service.container_name, problem.text,
            extra=self._facts | of_service(service) | of_reason(problem.reason),
        )  # fmt: skip

    def _tell_excluded(self, snapshot: Snapshot) -> None:
        """Log the services that the registry's filter excludes now, and did not before."""
        before = self.row.realised
        if snapshot is before or not self._log.isEnabledFor(logging.DEBUG):
            return
        known = before.excluded if before is not None else {}
        for service_id in snapshot.excluded.keys() - known.keys():
            self._tell_missing(logging.DEBUG, snapshot.excluded[service_id], EXCLUDED)


def _of_removed(service: Service | str) -> Facts:
    """The facts of a service whose entry is removed."""
    return {"service_id": service} if isinstance(service, str) else of_service(service)
