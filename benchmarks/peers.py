"""The agent beside another registrator: both are measured in the same way, one after the other.

A peer is a command that takes the agent's options and then a registry URI. It reads the engine's
address from ``DOCKER_HOST``. Nothing is known of its log, so both are watched in the registry.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from support.agent import Agent
from support.proxy import TCPProxy
from support.wait import until

from benchmarks.agents import IP, agent, resident
from benchmarks.figure import Figure, median
from benchmarks.meters import Meter, Usage
from benchmarks.registries import running
from benchmarks.registry import Registry
from benchmarks.resources import HOUR
from benchmarks.simulated import SimEngine, simulated

# Seconds between two resyncs of a measured registrator, and between those of a usual one.
RESYNC, USUAL = 20, 60
# Seconds in which nothing happens.
QUIET = 10.0
# Seconds without a new service, after which the rest does not come any more.
STALL = 30.0
LEAST, MOST = 0.01, 0.5


def cold(scheme: str, n: int, repeats: int, peer: str) -> Iterator[Figure]:
    """From the start of the process until the last of `n` services."""
    took: dict[str, list[float]] = {"": [], peer: []}
    with running(scheme) as registry, simulated(n) as engine:
        for _ in range(repeats):
            for who, found in took.items():
                registry.reset()
                began = time.time()
                with agent(engine.host, "-ip", IP, registry.uri, peer=who) as process:
                    done, stands = stand(registry, n, process)
                    assert stands == n, f"{stands} of {n} stand; {process.tail()}"
                    found.append(done - began)
    yield _figure(f"cold start, {n:,} containers: {scheme}", "s", took, peer)


def stand(registry: Registry, wanted: int, process: Agent) -> tuple[float, int]:
    """Wait until `wanted` services stand. Returns the moment (of `time.time`) and the number.

    The moment is infinite if some are still missing after `STALL` seconds without a new one.
    Constant requests would slow the registry down. So each wait is half of the time that is left
    at the present rate.
    """
    began = last = time.time()
    stood = 0
    while (found := registry.count()) < wanted:
        now = time.time()
        if found > stood:
            stood, last = found, now
        if now > last + STALL or not process.running:
            return float("inf"), found
        left = (now - began) * (wanted - found) / found if found else LEAST
        time.sleep(min(MOST, max(LEAST, left / 2)))
    return time.time(), found


def storm(scheme: str, n: int, repeats: int, peer: str) -> Iterator[Figure]:
    """`n` containers start within 50 ms under a running registrator."""
    took: dict[str, list[float]] = {"": [], peer: []}
    missing: dict[str, list[float]] = {"": [], peer: []}
    with running(scheme) as registry:
        for _ in range(repeats):
            for who in took:
                registry.reset()
                with simulated(n + 1, 1) as engine:
                    with agent(engine.host, "-ip", IP, registry.uri, peer=who) as process:
                        stand(registry, 1, process)
                        Meter(registry, [process]).wait_quiet()
                        times = engine.start(1, n, 0.05)
                        done, stands = stand(registry, n + 1, process)
                        took[who].append(done - times["first"] / 1e9)
                        missing[who].append(n + 1 - stands)
    yield _figure(f"{n:,} starts within 50 ms, missing: {scheme}", "", missing, peer)
    yield _figure(f"{n:,} starts within 50 ms, all visible: {scheme}", "s", took, peer)


def memory(scheme: str, n: int, repeats: int, peer: str) -> Iterator[Figure]:
    """Resident memory with `n` services, the larger of before and after a resync."""
    found: dict[str, list[float]] = {"": [], peer: []}
    with running(scheme) as registry:
        words = ("-ip", IP, "-resync", str(RESYNC), registry.uri)
        for _ in range(repeats):
            for who, levels in found.items():
                registry.reset()
                with simulated(max(n, 1), n) as engine:
                    with agent(engine.host, *words, peer=who) as process:
                        _wait_for_listing(engine)
                        stand(registry, n, process)
                        meter = Meter(registry, [process])
                        meter.wait_quiet()
                        before = resident(process.pid)
                        _wait_for_listing(engine)
                        meter.wait_quiet()
                        levels.append(max(before, resident(process.pid)))
    name = f"resident memory, {f'{n:,} containers' if n else 'idle'}: {scheme}"
    yield _figure(name, "MiB", found, peer)


@dataclass(frozen=True)
class Idle:
    """The use in a second without a resync, and what a resync adds."""

    second: Usage
    resync: Usage

    @property
    def hour(self) -> float:
        """Processor seconds of an hour with usual resyncs."""
        return self.second.agent * HOUR + self.resync.agent * HOUR / USUAL


def idle(scheme: str, n: int, resyncs: int, peer: str) -> Iterator[Figure]:
    """The costs of `n` services without changes: of an hour, and of a resync."""
    own, theirs = (_idle(scheme, n, resyncs, who) for who in ("", peer))
    name = f"{n:,} containers idle: {scheme}"
    yield Figure(f"processor time an hour, {name}", own.hour, "s", peer=theirs.hour, n=resyncs)
    rows: tuple[tuple[str, str, Callable[[Usage], float]], ...] = (
        ("processor time", "ms", lambda used: used.agent * 1e3),
        ("the registry's processor time", "ms", lambda used: used.server * 1e3),
        ("requests", "", lambda used: used.requests),
        ("received", "KiB", lambda used: used.received / 1024),
    )
    for what, unit, read in rows:
        values = read(own.resync), unit
        yield Figure(f"a resync, {what}, {name}", *values, peer=read(theirs.resync), n=resyncs)


def _idle(scheme: str, n: int, resyncs: int, who: str) -> Idle:
    """Measure the quiet time after a resync, and then several resyncs."""
    with running(scheme) as registry, simulated(n) as engine:
        with closing(TCPProxy(registry.address)) as proxy:
            words = ("-ip", IP, "-resync", str(RESYNC), registry.uri_at(proxy.address))
            with agent(engine.host, *words, peer=who) as process:
                stand(registry, n, process)
                meter = Meter(registry, [process], lambda: proxy.received)
                _wait_for_listing(engine)
                meter.wait_quiet()
                quiet = meter.over(QUIET)

                def several() -> None:
                    for _ in range(resyncs):
                        _wait_for_listing(engine)
                    meter.wait_quiet()

                used = meter.during(several).without(quiet)
    return Idle(quiet / quiet.seconds, used / resyncs)


def _wait_for_listing(engine: SimEngine) -> None:
    """Wait until the registrator lists the engine once more, as it does at a resync."""

    def listings() -> int:
        return engine.asked().get("containers/json", 0)

    before = listings()
    until(lambda: listings() > before, "a listing of the engine")


def _figure(name: str, unit: str, samples: dict[str, list[float]], peer: str) -> Figure:
    return Figure.of(name, samples[""], unit, peer=median(samples[peer]))
