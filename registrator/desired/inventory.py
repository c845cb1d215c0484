"""What this host's engine runs: dirty container ids in, a `Snapshot` out.

The guarantees:

- Level-triggered: an event only says that a container may have changed; what counts is what
  inspecting it says now. So events may be missed, doubled or reordered.
- Coalescing comes from working: what became dirty during a round is the next round.
- A container that is gone has no services. One that cannot be inspected keeps what was known of
  it and is tried again; the others do not wait for it.
- A snapshot is published after a complete listing only, and says whether all of it is known, and
  whether more is being looked at.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from registrator.desired.containers import Containers as Stock
from registrator.desired.services import Rules
from registrator.model import Container, EngineUnavailable, Event, Snapshot

log = logging.getLogger("registrator.inventory")

RETRY_FIRST, RETRY_MOST = 0.5, 30.0

# A container that starts this often within so many seconds is in a restart loop; it is looked at
# again only once it has been left alone for SETTLE seconds, or registries would see every round.
LOOP_STARTS, LOOP_SECONDS, SETTLE = 4, 10.0, 1.0

# Seconds of looking at containers until what is known is published, and the rest goes on; twice as
# many each time. So registries begin early where much is to be done, and are not told too often.
PORTION = 0.05


class Engine(Protocol):
    """The part of `DockerEngine` that an inventory needs."""

    def ping(self) -> None: ...  # noqa: D102 (as in DockerEngine)
    def running(self) -> dict[str, int]: ...  # noqa: D102
    def inspect(self, container_id: str) -> Container | None: ...  # noqa: D102


class Hint(NamedTuple):
    """Why an id is dirty: something happened at `time`, in ns of the engine's clock.

    With `gone` it was the container's end, and there is nothing to look at.
    """

    time: float
    gone: bool


class Start(NamedTuple):
    """A container's start: when it was, by the engine's clock, and when it was told, by ours."""

    time: float
    told: float


LOOK = Hint(0, gone=False)
LOOP = Hint(math.inf, gone=True)
Dirty = dict[str, Hint]


class Inventory:
    """The containers of one engine. `mark` and `resync` may be called from any thread.

    `publish` is called with each new snapshot, from the thread that calls `step`. With
    `keep_failed` the services of a container that ended with an exit code of 1 to 127 stay
    (``-deregister on-success``).
    """

    def __init__(
        self,
        engine: Engine,
        rules: Rules,
        publish: Callable[[Snapshot], None],
        *,
        keep_failed: bool = False,
        addresses: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._stock = Stock(rules, addresses)
        self._publish = publish
        self._keep_failed = keep_failed
        self._clock = clock
        self._changed = threading.Condition()
        self._dirty: Dirty = {}
        self._moved: set[str] = set()  # those that joined or left a network
        self._listing_due = False
        self._next_rules: tuple[Rules, frozenset[str]] | None = None
        self._listed: dict[str, int] = {}
        self._later: dict[str, tuple[float, float]] = {}  # id -> (when to try again, wait)
        self._unknown: set[str] = set()  # those that never could be inspected
        self._portion = PORTION
        self._starts: dict[str, list[Start]] = {}
        self._snapshot: Snapshot | None = None

    def mark(self, event: Event) -> None:
        """Note that a container may have changed.

        What its networks tell matters only while it runs: during a start its inspection would
        wait for the end of that, and hold up all others.
        """
        gone = event.action == "destroy" or (
            event.action == "die" and not self._keeps(event.exit_code)
        )
        with self._changed:
            if event.action in ("connect", "disconnect"):
                self._moved.add(event.container_id)
            else:
                self._note(event.container_id, Hint(event.time, gone))
            if event.action == "start":
                start = Start(event.time / 1e9, self._clock())
                self._starts.setdefault(event.container_id, []).append(start)
            self._changed.notify()

    def _keeps(self, exit_code: int | None) -> bool:
        """Whether services outlive such an exit; one that is not told of may be a failure."""
        return self._keep_failed and (exit_code is None or 0 < exit_code < 128)  # 128: a signal

    def _note(self, container_id: str, hint: Hint) -> None:
        """Keep the newer hint: a start must not be undone by an end that is told of late.

        What comes after an end but was before it is to be looked at: the clock may be set back.
        """
        before = self._dirty.get(container_id, LOOK)
        if hint.time >= before.time:
            self._dirty[container_id] = hint
        elif before.gone:
            self._dirty[container_id] = Hint(before.time, gone=False)

    def follow(self, rules: Rules, addresses: frozenset[str]) -> None:
        """Make the services by other rules from the next step on."""
        with self._changed:
            self._next_rules = rules, addresses
            self._listing_due = True
            self._changed.notify()

    def resync(self) -> None:
        """Have the engine listed in full by the next step."""
        with self._changed:
            self._listing_due = True
            self._changed.notify()

    def wait(self, timeout: float) -> bool:
        """Return once there is something to do, or after `timeout` seconds; says which."""
        with self._changed:
            due = min((when for when, _ in self._later.values()), default=None)
            if due is not None:
                timeout = min(timeout, max(0.0, due - self._clock()))
            return self._changed.wait_for(
                lambda: bool(self._dirty or self._moved or self._listing_due), timeout
            )

    def step(self) -> None:
        """Do all that is due, and publish the snapshot if it is another one.

        Raises `EngineUnavailable` where the engine does not answer at all; nothing is forgotten
        then, and the next step goes on with it.
        """
        dirty, listing = self._take()
        try:
            if listing:
                self._list(dirty)
                listing = False
            self._look(dirty)
        finally:
            with self._changed:
                # What was marked meanwhile may still be the older word.
                marked, self._dirty = self._dirty, dict(dirty)
                for container_id, hint in marked.items():
                    self._note(container_id, hint)
                self._listing_due |= listing
        self._portion = 2 * self._portion if dirty else PORTION
        self._tell(self._stock.derive(dirty.keys()), not (dirty or self._unknown), not dirty)

    def _tell(self, changed: bool, complete: bool, settled: bool) -> None:
        """Publish what is known, if that is another snapshot."""
        before = self._snapshot
        if changed or before is None or (before.complete, before.settled) != (complete, settled):
            snapshot = self._stock.snapshot(complete=complete, settled=settled)
            if snapshot != before:
                self._snapshot = snapshot
                self._publish(snapshot)

    def _take(self) -> tuple[Dirty, bool]:
        now = self._clock()
        with self._changed:
            dirty, self._dirty = self._dirty, {}
            moved, self._moved = self._moved, set()
            listing, self._listing_due = self._listing_due or self._snapshot is None, False
            if self._next_rules is not None:
                self._stock.use_rules(*self._next_rules)
                self._next_rules = None
            # One that is not known yet has its start in `dirty`, or still before it.
            for container_id in moved & self._stock.ids:
                dirty.setdefault(container_id, LOOK)
            due = [(when, key) for key, (when, _) in self._later.items() if when <= now]
            if due and not dirty:
                # What hung once may hang again: nobody is to wait for it, let alone for several.
                dirty = {min(due)[1]: LOOK}
            self._hold_loops(dirty, now)
        return dirty, listing

    def _hold_loops(self, dirty: Dirty, now: float) -> None:
        """Put off looking at containers that are in a restart loop; their services are gone."""
        for container_id, starts in list(self._starts.items()):
            recent = [start for start in starts if start.told > now - LOOP_SECONDS]
            if not recent:
                del self._starts[container_id]
                continue
            self._starts[container_id] = recent
            last = recent[-1]
            # Many may be told at once of those that happened while the engine was not reached.
            close = sum(abs(last.time - start.time) < LOOP_SECONDS for start in recent)
            until = last.told + SETTLE
            if close >= LOOP_STARTS and now < until and container_id in dirty:
                dirty[container_id] = LOOP
                self._later[container_id] = (until, RETRY_FIRST)

    def _list(self, dirty: Dirty) -> None:
        """Mark what a full listing shows to be new, changed or gone."""
        listed = self._engine.running()
        for container_id in self._stock.ids - listed.keys():
            dirty.setdefault(container_id, LOOK)
        # One that could not be inspected has a time of its own to be tried again.
        seen = self._stock.ids | self._unknown
        for container_id, digest in listed.items():
            if container_id not in seen or self._listed.get(container_id) != digest:
                dirty.setdefault(container_id, LOOK)
        self._unknown &= listed.keys()
        self._listed = listed

    def _look(self, dirty: Dirty) -> None:
        """Bring what is known of the dirty containers up to date; what is left takes too long."""
        end = self._clock() + self._portion
        # An end needs no inspection, and what only a listing told of is the least news.
        urgency = sorted(dirty.items(), key=lambda item: (not item[1].gone, item[1] is LOOK))
        for container_id, hint in urgency:
            if self._clock() > end:
                break
            if hint.gone and not self._stock.started_after(container_id, hint.time):
                self._settle(container_id, None, looping=hint is LOOP)
            else:
                # An end before the start: an old event again, or the clock was set back.
                self._inspect(container_id)
            del dirty[container_id]

    def _inspect(self, container_id: str) -> None:
        try:
            container = self._engine.inspect(container_id)
        except EngineUnavailable as error:
            self._put_off(container_id, error)
        else:
            self._settle(container_id, container)

    def _settle(
        self, container_id: str, container: Container | None, *, looping: bool = False
    ) -> None:
        """Take in what a container is now; one in a restart loop is to be looked at later."""
        if not looping:
            self._later.pop(container_id, None)
        self._unknown.discard(container_id)
        if container is not None and container.exit_code is not None:
            if self._keeps(container.exit_code):
                return
            container = None
        self._stock.put(container_id, container)

    def _put_off(self, container_id: str, error: EngineUnavailable) -> None:
        """Try this container again later; raises where it is not the container but the engine."""
        self._engine.ping()
        wait = min(RETRY_MOST, 2 * self._later.get(container_id, (0, RETRY_FIRST / 2))[1])
        self._later[container_id] = (self._clock() + wait, wait)
        if container_id not in self._stock.ids:
            self._unknown.add(container_id)
        log.warning(
            "container %s cannot be inspected (%s); what is known of it stays, next try in %.0f s",
            container_id[:12], error, wait,
        )  # fmt: skip
