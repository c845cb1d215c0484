"""The reports that fill the board: each replaces its row, and logs what the operator must know.

Only one thread at a time writes a report. Any thread may read its `row` and its `counters`.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

from registrator.model import Entry, Problem, Reason, Snapshot
from registrator.status.instruments import OPERATION, OPERATIONS, VISIBLE, Histogram, Stopwatch
from registrator.status.rows import RegistryRow, Row
from registrator.uri import Address

R = TypeVar("R", bound=Row)
Clock = Callable[[], float]

# The log sums up more changes than this in one line.
MAX_SINGLE_LINES = 20

# So many events may wait to be visible. In a long outage the oldest are forgotten.
MAX_WAITING_EVENTS = 1000


class Report(Generic[R]):
    """The row and the counters of one thing, and the log lines about its outages.

    An outage is a series of failures. The log tells the first failure, every tenth, and the
    recovery. A counter starts at 0 and only grows; its key is its name and the values of its
    labels.
    """

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

    def failed(self, reason: object, *, lost: bool = False) -> R:
        """Note a failed attempt. The text of `reason` must be fit for the log.

        If entries may be `lost` by it, the log tells it whatever its number. Returns the new row.
        """
        failures, since = self.row.failures + 1, self.row.since
        if failures == 1:
            self._began, since = self._clock(), time.time()
        self.update(failures=failures, error=str(reason), since=since)
        self.count("failures", "session_lost" if lost else "unavailable")
        if lost:
            self._log.warning("%s: %s; registering again what is missing", self.row.name, reason)
        elif failures == 1:
            self._log.warning("%s: %s; retrying", self.row.name, reason)
        elif failures % 10 == 0:
            self._log.warning(
                "%s: still failing after %.0f s and %d attempts: %s",
                self.row.name, self._clock() - self._began, failures, reason,
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
            self._log.info("%s: recovered after %.1f s%s", before.name, lasted, detail)
        return before.failures > 0


class Written(NamedTuple):
    """How many entries a step registered and removed."""

    registered: int = 0
    removed: int = 0

    def __str__(self) -> str:
        return f"{self.registered} registered, {self.removed} removed"


class RegistryReport(Report[RegistryRow]):
    """The row and the counters of one registry, and the log lines about its services."""

    def __init__(self, name: str, clock: Clock = time.monotonic) -> None:
        super().__init__(RegistryRow(name), logging.getLogger("registrator.reconciler"), clock)
        self._twins: set[str] = set()
        self._server = ""
        self.operations = Stopwatch(OPERATIONS, OPERATION, clock)
        self.event_to_visible = Histogram(VISIBLE)
        self._visible_until = 0.0  # when the last event came that is visible
        # The snapshot that is to be realised, and since when there is one that is not.
        self._wanted: tuple[Snapshot | None, float] = (None, clock())

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
                self.row.name, host,
            )  # fmt: skip
            self._twins.add(host)

    def listed(self) -> None:
        """Note a listing."""
        self.update(last_listing=time.time())

    def wrote(
        self, registered: Sequence[Entry], removed: Sequence[str], *, drift: bool, seconds: float
    ) -> Written:
        """Note the entries and the keys that a write registered and removed, in so many seconds.

        With `drift` the registry had changed, and not what is desired.
        """
        name, written = self.row.name, Written(len(registered), len(removed))
        cause = "drift" if drift else "change"
        self.count("writes", "register", cause, by=written.registered)
        self.count("writes", "remove", cause, by=written.removed)
        level = logging.INFO
        if sum(written) > MAX_SINGLE_LINES:
            self._log.info("%s: %s in %.2f s", name, written, seconds)
            level = logging.DEBUG
        for entry in registered:
            service = entry.service
            self._log.log(
                level,
                "%s: registered %s as %s at %s (container %s)%s",
                name, service.name, service.id, Address(service.address, service.port),
                service.container_name, f", {entry.status}" if entry.status else "",
            )  # fmt: skip
        for key in removed:
            self._log.log(level, "%s: removed %s", name, key)
        return written

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
                self._log.log(
                    level,
                    "%s: %s (container %s) is not registered: %s",
                    self.row.name, service_id, snapshot.services[service_id].container_name,
                    problem.text,
                )  # fmt: skip
        if snapshot.settled:
            self._see_events(snapshot)
        return self.succeeded(outcome, realised=snapshot, problems=problems, server=self._server)

    def _tell_excluded(self, snapshot: Snapshot) -> None:
        """Log the services that the registry's filter excludes now, and did not before."""
        before = self.row.realised
        if snapshot is before:
            return
        known = before.excluded if before is not None else {}
        for service_id in snapshot.excluded.keys() - known.keys():
            self._log.debug(
                "%s: %s (container %s) is not registered: %s",
                self.row.name, service_id, snapshot.excluded[service_id].container_name,
                Reason.FILTERED.value,
            )  # fmt: skip
