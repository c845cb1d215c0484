"""Keeps one registry in step with what this host runs. Only this module retries a write.

`Reconciler.step` does all that is due, once, and raises what the backend raises. `run` repeats it
until the agent ends. After a failure nothing is certain, so the next attempt lists the registry.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from registrator.backend import Backend, BackendError, SessionLost, listing
from registrator.model import Actual, Entry, Identity, Mark, Plan, Problem, Snapshot
from registrator.status.report import RegistryReport, Written
from registrator.sync.by_health import ByHealth
from registrator.sync.gone import gone
from registrator.sync.plan import Here, by_key, diff, entries, looked, written
from registrator.sync.problems import problems
from registrator.system.retry import FIRST_BACKOFF, backoff, retry

# Seconds from an outage to another listing: a thawed server may still carry out a late write.
SECOND_LOOK = 2.0

# When a member restarts, all agents of a fleet lose their connections at one moment. Each draws how
# many seconds later it lists again. What a wiped registry lost is to be back within 5 s.
SPREAD = (1.0, 4.0)


class GaveUp(Exception):
    """The registry (its name, and why) was not reached within ``-retry-attempts`` at start."""


class Reconciler:
    """Keeps one registry in sync.

    Any thread may call `publish`, `wake`, `wake_soon`, `retry_now` and `step_here`. One thread
    calls `run`. `resync` is the time between two listings in seconds, 0 for never. `attempts` (-1
    for no limit) and `first_wait` (seconds) are the values of ``-retry-attempts`` and
    ``-retry-interval``. They apply until the first success. `view` is the text of the registry's
    filter, or empty.
    """

    def __init__(
        self,
        report: RegistryReport,
        make: Callable[[Callable[[], None], Callable[[], None]], Backend],
        identity: Identity,
        *,
        cleanup: bool = True,
        resync: float = 60,
        attempts: int = -1,
        first_wait: float = 2.0,
        view: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.report = report
        self._identity = identity
        self._cleanup, self._view = cleanup, view
        self._resync = resync or math.inf
        self._attempts, self._first_wait = attempts, first_wait
        self._clock = clock
        self._turn = threading.Lock()  # held by the thread that does a step
        self._error: BackendError | None = None  # what a step in another thread raised
        self._due = math.inf  # when the thread of `run` wakes up by itself
        self._wakeup, self._retry_now = threading.Event(), threading.Event()
        self._latest: Snapshot | None = None
        self._listing_due = True
        self._spread_listing = math.inf
        self._failed_before = False  # whether the last step failed: a write may still land
        self._next_listing = math.inf
        self._last_keepalive = clock()
        self._lost = False  # whether a keep-alive found a loss, and no listing succeeded since
        self._actual: dict[str, Actual] = {}
        self._doubtful: set[str] = set()  # keys of entries with our engine's id
        self._entries: dict[str, Entry] = {}  # by service id
        self._wanted: set[str] = set()  # keys that were desired and may still be in the registry
        self._refused: dict[str, tuple[str, str]] = {}  # key -> the refused content, and why
        self._backend = make(self.wake, self.wake_soon)
        self._any_thread = bool(getattr(self._backend, "any_thread", False))
        self._by_health = ByHealth(bool(getattr(self._backend, "shows_health", False)))

    def publish(self, snapshot: Snapshot, *, wake: bool = True) -> None:
        """Take over the desired state. Without `wake`, the caller calls `step_here` next."""
        self._latest = self.report.wants(snapshot.views.get(self._view, snapshot))
        if wake:
            self._wakeup.set()

    def wake(self) -> None:
        """List and correct the registry at once, or during an outage with the next attempt."""
        self._listing_due = True
        self._wakeup.set()

    def wake_soon(self) -> None:
        """List and correct the registry within `SPREAD`, or at once if something is to be written.

        A second call does not bring the moment forward.
        """
        if self._spread_listing == math.inf:
            self._spread_listing = self._clock() + random.uniform(*SPREAD)
        self._wakeup.set()

    def retry_now(self) -> None:
        """Do as `wake`, and end the wait for the next attempt."""
        self.wake()
        self._retry_now.set()

    def run(self, stop: threading.Event) -> None:
        """Keep the registry in sync until `stop` is set and `retry_now` called.

        Raises `GaveUp`.
        """

        def steps() -> None:
            while not stop.is_set():
                self._wakeup.clear()
                with self._turn:
                    error, self._error = self._error, None
                    if error is not None:
                        raise error
                    self.step()
                    pause = self._pause()
                self._wakeup.wait(pause)

        try:
            retry(steps, BackendError, self._failed, stop, self._wait)
        finally:
            with self._turn:
                self._backend.close()

    def step_here(self) -> None:
        """Do all that is due in the calling thread, if the backend allows it, is well and is idle.

        Otherwise the thread of `run` does it. That thread also reports what fails.
        """
        done = False
        if self._any_thread and self._turn.acquire(blocking=False):
            try:
                if not self._failed_before:
                    self.step()
                    done = self._next_due() >= self._due
            except BackendError as error:
                self._error = error
            finally:
                self._turn.release()
        if not done or self._latest is not self.report.row.realised:
            self._wakeup.set()

    def step(self) -> Written:
        """Do all that is due, once. Raises what the backend raises."""
        snapshot = self._latest
        if snapshot is None:
            return Written()
        done, found = Written(), self.report.row.problems
        try:
            self._keep_alive()
            news = snapshot is not self.report.row.realised
            if news and self._spread_listing < math.inf:
                self._listing_due = True  # The write needs a new connection anyway.
            if news or self._is_listing_due():
                done, found = self._realise(snapshot)
        except Exception:
            # After a bug, too: no other thread may plan over nothing before the process ends.
            self._listing_due = self._failed_before = True
            raise
        self._failed_before = False
        if self.report.realised(snapshot, found, done):
            self._next_listing = min(self._next_listing, self._clock() + SECOND_LOOK)
        return done

    def _keep_alive(self) -> None:
        interval = self._backend.keepalive_interval
        now = self._clock()
        # Before a listing, the backend would find the same loss again.
        if interval is None or self._lost or now < self._last_keepalive + interval:
            return
        try:
            with self.report.operations.measure("keepalive"):
                self._backend.keepalive()
        except SessionLost:
            self._lost = True
            raise
        self._last_keepalive = now

    def _is_listing_due(self) -> bool:
        due = min(self._next_listing, self._spread_listing)
        return self._listing_due or self._clock() >= due

    def _look(self, desired: Mapping[str, Entry]) -> None:
        """List our own entries, and what stands at the keys that are `desired` or were."""
        now = self._clock()
        by_time = now >= self._next_listing
        self._listing_due = False
        self._spread_listing = math.inf
        keys = self._wanted.union(desired)
        with self.report.operations.measure("list"):
            found = listing(self._backend, keys)
        self._actual = looked(self._actual, found, desired)
        self._lost = False
        self._doubtful = {k for k, a in self._actual.items() if a.mark in (Mark.TWIN, Mark.UNTOLD)}
        self.report.listed()
        if by_time and not self._failed_before:
            # Only now: after a failure, an entry that is not there yet may still appear.
            self._wanted &= self._actual.keys()
        self._refused.clear()
        self._next_listing = now + self._resync * random.uniform(0.9, 1.1)

    def _realise(self, snapshot: Snapshot) -> tuple[Written, Mapping[str, Problem]]:
        """Write what is missing. Returns what was written, and the problems by service id."""
        self._entries, found = entries(snapshot, self._entries, self._backend.entry)
        desired, clashes = by_key(self._entries.values())
        if self._is_listing_due():
            self._look(desired)
        desired = self._by_health.choose(desired, self._actual)
        found |= self._by_health.problems()
        plan = self._plan(snapshot, desired)
        drift = snapshot is self.report.row.realised
        done = self._apply(plan, drift)
        self._apply(self._withdrawal(desired), drift)
        found.update(problems(desired, clashes, plan.conflicts, self._refused))
        return done, found

    def _is_refused(self, entry: Entry) -> bool:
        """Whether the registry refused this very content since the last listing."""
        return self._refused.get(entry.key, (None,))[0] == entry.content

    def _plan(self, snapshot: Snapshot, desired: Mapping[str, Entry]) -> Plan:
        """The plan to write. Entries that the registry refused wait for the next listing."""
        writable = desired
        if self._refused:
            writable = {key: entry for key, entry in desired.items() if not self._is_refused(entry)}
        self._wanted |= writable.keys()
        here = Here(self._identity.hostname, snapshot.addresses, snapshot.host_addresses)

        def dangling(key: str) -> bool:
            known = key in self._wanted or key in self._by_health.withheld
            return known or (self._cleanup and snapshot.complete)

        for key in self._doubtful & writable.keys():
            if here.claims(self._actual[key], writable[key].service):
                self._actual[key] = replace(self._actual[key], mark=Mark.OURS)
        plan = diff(writable, self._actual, here, dangling=dangling)
        doubtful = (self._actual[key] for key in self._doubtful)
        self.report.twins({found.host for found in doubtful if here.mark(found) is Mark.TWIN})
        if snapshot.settled:
            return plan
        # Nothing that stands may be changed yet.
        missing = tuple(entry for entry in plan.register if entry.key not in self._actual)
        return Plan(missing, conflicts=plan.conflicts)

    def _withdrawal(self, desired: Mapping[str, Entry]) -> Plan:
        """A plan that removes our older entries, if the registry refused the newer ones."""
        stale = self._refused.keys() & desired.keys() & self._actual.keys()
        ours = (key for key in stale if self._actual[key].mark is Mark.OURS)
        return Plan(deregister=tuple(ours))

    def _apply(self, plan: Plan, drift: bool) -> Written:
        """Carry out a plan and remember what stands then. With `drift`, no change caused it."""
        if not plan:
            return Written()
        going = gone(plan, self._actual, self.report.row.realised, self._entries, self._backend)
        self.report.plans(plan.register, going)
        started = self._clock()
        with self.report.operations.measure("apply"):
            refused = self._backend.apply(plan)
        self.report.count("rejections", by=len(refused))
        seconds = self._clock() - started
        registered = [entry for entry in plan.register if entry.key not in refused]
        removed = {key: each for key, each in going.items() if key not in refused}
        for entry in plan.register:
            if entry.key in refused:
                self._refused[entry.key] = (entry.content, refused[entry.key])
        for entry in registered:
            self._refused.pop(entry.key, None)
            self._actual[entry.key] = written(entry)
        for key in removed:
            self._actual.pop(key, None)
            self._doubtful.discard(key)
            self._wanted.discard(key)
        return self.report.wrote(registered, removed, drift=drift, seconds=seconds)

    def _failed(self, error: Exception) -> float:
        """Note a failed attempt. Returns the seconds to wait before the next one."""
        lost = isinstance(error, SessionLost)
        row = self.report.failed(error, lost=lost, moved=getattr(error, "moved", False))
        if not row.last_success and 0 <= self._attempts < row.failures:
            raise GaveUp(row.name, str(error)) from error
        if lost and row.failures == 1:
            return 0
        first = FIRST_BACKOFF if row.last_success else self._first_wait
        return self.report.waits(backoff(row.failures, first))

    def _wait(self, seconds: float) -> None:
        self._retry_now.wait(seconds)
        self._retry_now.clear()

    def _pause(self) -> float | None:
        """Seconds until the next thing is due by itself."""
        self._due = self._next_due()
        return None if self._due == math.inf else max(0.0, self._due - self._clock())

    def _next_due(self) -> float:
        """When the next thing is due by itself."""
        if self._latest is None:
            return math.inf
        due = min(self._next_listing, self._spread_listing)
        interval = self._backend.keepalive_interval
        return due if interval is None else min(due, self._last_keepalive + interval)
