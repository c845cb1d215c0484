"""The herd: the requests of many agents to one registry, calculated and simulated.

The simulation runs the agent's real reconciler on a registry that only counts requests. The clock
is simulated, so thousands of agents fit into one process, and an hour into seconds. The simulation
shows when the agents send requests, and how many. docs/performance.md has the model. Other
benchmarks measure the cost of one request.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from benchmarks.figure import Figure
from benchmarks.paper import (
    HOSTS,
    OUTAGE,
    RESYNC,
    ROLLING,
    Costs,
    attempts,
    restart,
    returning,
    steady,
)
from registrator.backend import SessionLost, Unavailable
from registrator.model import Actual, Entry, Identity, Plan, Service, Snapshot
from registrator.status.report import RegistryReport
from registrator.sync.reconciler import SECOND_LOOK, Reconciler
from registrator.system.retry import backoff

SERVICES, KEEPALIVE = 100, 10.0
# The requests of one listing, and the services in one transaction, as with etcd.
LISTING, BATCH = 1, 128
WRITES = -(-SERVICES // BATCH)
# A loss shows at a keep-alive. A listing, the writes and a second listing follow.
COSTS = Costs(listing=LISTING, alive=1 / KEEPALIVE, start=LISTING, loss=1 + 2 * LISTING + WRITES)


@dataclass
class Clock:
    """The time of all agents, in seconds."""

    now: float = 0.0


class Registry:
    """Counts the requests in each second. Does not answer while it is `down`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.down = False
        self.requests: dict[int, int] = {}

    def ask(self, requests: int = 1) -> None:
        """Count the requests. Raises `Unavailable` at the first one while it is down."""
        second = int(self.clock.now)
        self.requests[second] = self.requests.get(second, 0) + (1 if self.down else requests)
        if self.down:
            raise Unavailable("down")

    def rate(self, since: float, until: float) -> float:
        """The average requests per second between two moments."""
        span = range(int(since), int(until))
        return sum(self.requests.get(second, 0) for second in span) / len(span)

    def peak(self, since: float, until: float) -> int:
        """The highest number of requests in one second."""
        return max(self.requests.get(second, 0) for second in range(int(since), int(until)))


class CountingBackend:
    """A backend that sends as many requests as the backend of etcd."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.entries: dict[str, Actual] = {}
        self.lost = False

    @property
    def keepalive_interval(self) -> float | None:
        """One request for all services."""
        return KEEPALIVE

    def entry(self, service: Service) -> Entry:
        """The entry of a service."""
        return Entry(service.id, "", service)

    def list(self, keys: Collection[str] = (), /) -> dict[str, Actual]:
        """Ask for one listing."""
        self._registry.ask(LISTING)
        return dict(self.entries)

    def apply(self, plan: Plan) -> dict[str, str]:
        """Send one request for each batch."""
        self._registry.ask(-(-len(plan.register) // BATCH))
        self.entries |= {entry.key: Actual(entry.content) for entry in plan.register}
        return {}

    def keepalive(self) -> None:
        """Send one request. The lease may have ended in an outage."""
        self._registry.ask()
        if self.lost:
            self.lost, self.entries = False, {}
            raise SessionLost("expired")

    def close(self) -> None:
        """Do nothing: there is no connection."""


class Host:
    """One agent: its reconciler, and the time of its next step."""

    def __init__(self, clock: Clock, registry: Registry, snapshot: Snapshot) -> None:
        self.backend = CountingBackend(registry)
        self._clock = clock
        self._failures = 0
        self.ends = float("inf")
        self.reconciler = Reconciler(
            RegistryReport("registry"), lambda *_: self.backend, Identity("", ""), resync=RESYNC,
            clock=lambda: clock.now,
        )  # fmt: skip
        self.reconciler.publish(snapshot)

    def step(self) -> float:
        """Do what is due. Returns the time of the next step."""
        try:
            self.reconciler.step()
        except Unavailable:
            self._failures += 1
            return self._clock.now + backoff(self._failures)
        except SessionLost:
            return self._clock.now
        if self._failures:
            self._failures = 0
            self.reconciler._next_listing = self._clock.now + SECOND_LOOK
        return self._clock.now + (self.reconciler._pause() or 0.01)


class Herd:
    """Many hosts at one registry."""

    def __init__(self, hosts: int) -> None:
        self.clock = Clock()
        self.registry = Registry(self.clock)
        services = {
            f"s{i}": Service(f"s{i}", "web", "192.0.2.1", 1000 + i, 80) for i in range(SERVICES)
        }
        self._snapshot = Snapshot(services)
        self._due: list[tuple[float, int, Host]] = []
        self.hosts = [self._start(random.uniform(0, RESYNC), i) for i in range(hosts)]

    def _start(self, when: float, number: int) -> Host:
        host = Host(self.clock, self.registry, self._snapshot)
        heapq.heappush(self._due, (when, number, host))
        return host

    def run(self, until: float) -> None:
        """Let the time pass until the moment `until`."""
        while self._due[0][0] < until:
            when, number, host = heapq.heappop(self._due)
            self.clock.now = max(self.clock.now, when)
            if when >= host.ends:
                host = self._replaced(host, number)
            heapq.heappush(self._due, (host.step(), number, host))
        self.clock.now = until

    def restart(self, over: float) -> None:
        """Restart every agent, one by one, within `over` seconds. The entries stay."""
        for place, host in enumerate(self.hosts):
            host.ends = self.clock.now + over * place / len(self.hosts)

    def _replaced(self, host: Host, number: int) -> Host:
        fresh = Host(self.clock, self.registry, self._snapshot)
        fresh.backend.entries = dict(host.backend.entries)
        self.hosts[number] = fresh
        return fresh

    def right(self) -> int:
        """How many hosts have all their services in the registry."""
        return sum(len(host.backend.entries) == SERVICES for host in self.hosts)


def rows(quick: bool) -> Iterator[Figure]:
    """Simulated rates. The target is the calculated rate and a tenth more for chance."""
    hosts = 500 if quick else 5000
    herd = Herd(hosts)
    herd.run(600)
    yield _figure("steady state", herd.registry.rate(300, 600), steady(COSTS, hosts), hosts)
    herd.restart(ROLLING)
    herd.run(600 + ROLLING)
    rate = herd.registry.rate(600, 600 + ROLLING)
    yield _figure("all agents restarted within 10 min", rate, restart(COSTS, hosts), hosts)
    herd.registry.down = True
    back = herd.clock.now + OUTAGE
    herd.run(back)
    rate = herd.registry.rate(back - 60, back)
    yield _figure("attempts at the end of an outage of 10 min", rate, attempts(hosts), hosts)
    herd.registry.down = False
    for host in herd.hosts:
        host.backend.lost = True
    herd.run(back + 120)
    peak = float(herd.registry.peak(back, back + 120))
    yield _figure("the highest second after it", peak, returning(COSTS, hosts), hosts)
    yield Figure("hosts not in sync 2 min after it", hosts - herd.right(), "", 0)


def _figure(what: str, rate: float, paper: float, hosts: int) -> Figure:
    scaled = paper * HOSTS / hosts
    note = f"target: the model; for {HOSTS:,} hosts {scaled:,.0f}/s"
    return Figure(f"{hosts:,} hosts: {what}", rate, "req/s", 1.1 * paper, note=note)
