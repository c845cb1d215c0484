"""An agent beside the entries of other hosts, which must not cost it anything."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count

from support.agent import Agent
from support.proxy import TCPProxy

from benchmarks.agents import Host, agent, peak
from benchmarks.figure import Figure, median
from benchmarks.foreign import SEEDERS, SERVICES
from benchmarks.meters import Meter, Usage
from benchmarks.registries import running
from benchmarks.registry import Registry
from benchmarks.resources import resync
from benchmarks.simulated import SimEngine, simulated
from benchmarks.starting import settle

OWN = 100
# Seconds that show what an agent and a server use without a resync, and the resyncs of a sample.
IDLE, EACH = 10.0, 10
# Targets: seconds of a cold start without and with foreign entries. MiB that these may add.
ALONE, BESIDE, ADDED = 0.6, 0.8, 3.0
RATIO = 1.5
MEMORY = {"etcd": 45.0}


@dataclass
class Sample:
    """The measured values beside one number of foreign entries."""

    cold: list[float] = field(default_factory=list)
    resyncs: list[Usage] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)


def rows(scheme: str, counts: Sequence[int], repeats: int) -> Iterator[Figure]:
    """All figures beside each number of foreign entries, compared with those of the first one.

    Each measured agent is that of a new host, since a lease or a session stays for a while.
    """
    hosts = map(Host, count(20_000))
    seeded = 0
    alone: Sample | None = None
    with running(scheme) as registry, SEEDERS[scheme](registry) as seed:
        for number in counts:
            if number > seeded:
                seed([Host(each) for each in range(seeded // SERVICES, number // SERVICES)])
                seeded = number
            sample = Sample()
            for _ in range(repeats):
                _start(registry, next(hosts), sample)
            _resyncs(registry, next(hosts), repeats, sample)
            yield from figures(f"{scheme}, {number:,} foreign", scheme, sample, alone)
            alone = alone or sample


@contextmanager
def _started(registry: Registry, host: Host, uri: str) -> Iterator[tuple[SimEngine, Agent, float]]:
    """An engine, an agent that is right, and the seconds that this took."""
    with simulated(OWN, identity=host.engine) as engine:
        began = time.time()
        with agent(engine.host, *host.words, "-resync", str(10**6), uri) as process:
            done, stand = settle(registry, OWN, process, host)
            assert stand == OWN, f"{stand} of {OWN} stand; {process.tail()}"
            yield engine, process, done - began
    registry.clear(host)


def _start(registry: Registry, host: Host, sample: Sample) -> None:
    """Measure a cold start."""
    with _started(registry, host, registry.uri) as (_, process, took):
        sample.cold.append(took)
        Meter(registry, [process]).wait_quiet()
        sample.peak.append(peak(process.pid))


def _resyncs(registry: Registry, host: Host, repeats: int, sample: Sample) -> None:
    """Measure resyncs, several for each sample. A proxy counts the bytes from the registry."""
    with closing(TCPProxy(registry.address)) as proxy:
        uri = registry.uri_at(proxy.address)
        with _started(registry, host, uri) as (engine, process, _):
            meter = Meter(registry, [process], lambda: proxy.received)

            def several() -> None:
                for _ in range(EACH):
                    resync(engine, process)
                    meter.wait_quiet(0.3)

            meter.wait_quiet()
            idle = meter.over(IDLE)
            for _ in range(repeats):
                sample.resyncs.append(meter.during(several).without(idle) / EACH)
            sample.peak.append(peak(process.pid))


def figures(name: str, scheme: str, sample: Sample, alone: Sample | None) -> Iterator[Figure]:
    """The figures of a sample. Those of `alone` are what they are compared with."""
    cold = median(alone.cold) if alone else None
    target = BESIDE if alone else ALONE
    yield Figure.of(f"{name}: cold start until right", sample.cold, "s", target=target, base=cold)
    for what, field_name, scale, unit in (
        ("agent's processor time a resync", "agent", 1e3, "ms"),
        ("server's processor time a resync", "server", 1e3, "ms"),
        ("received a resync", "received", 1 / 1024, "KiB"),
        ("requests a resync", "requests", 1, ""),
    ):
        samples = [getattr(each, field_name) * scale for each in sample.resyncs]
        base = median(getattr(e, field_name) * scale for e in alone.resyncs) if alone else None
        times = RATIO if alone else None
        yield Figure.of(f"{name}: {what}", samples, unit, base=base, times=times)
    most = median(alone.peak) + ADDED if alone else MEMORY.get(scheme)
    base = median(alone.peak) if alone else None
    yield Figure.of(f"{name}: peak memory", sample.peak, "MiB", target=most, base=base)
