"""Each alert fires at its fault and ends after it, and the others do not fire.

The faults are real, and the windows are short. `promtool` tests the real windows.
"""

from __future__ import annotations

import itertools
import re
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from support.agent import Agent
from support.consul import put
from support.engine import Dockerd
from support.prometheus import Prometheus
from support.proxy import RecordingHTTPProxy, Request, TCPProxy
from support.servers import Consul
from support.wait import until

Watched = Callable[..., Agent]
REGISTER = "/v1/agent/service/register"


def ends(prometheus: Prometheus, *alerts: str) -> None:
    """Wait until nothing fires any more. Until then these alerts have fired, and no other."""
    until(lambda: prometheus.fired() >= {*alerts}, lambda: f"{alerts}, not {prometheus.fired()}")
    prometheus.fires()
    assert prometheus.fired() == {*alerts}


class Holding:
    """A proxy before Consul that holds requests of one kind: `seconds` each, or less if let go."""

    def __init__(self, consul: Consul) -> None:
        self._proxy = RecordingHTTPProxy(consul.address, before=self._before)
        self.uri = f"consul://{self._proxy.address}?timeout=60"
        self._free = threading.Event()
        self._kind, self._seconds = "nothing", 0.0

    def hold(self, kind: str, seconds: float = 60) -> None:
        """Hold requests from now on. `kind` is a pattern for the method and the path."""
        self._kind, self._seconds = kind, seconds

    def let_go(self) -> None:
        """Hold nothing any more."""
        self._free.set()

    def _before(self, request: Request) -> None:
        if re.match(self._kind, f"{request.method} {request.path}"):
            self._free.wait(self._seconds)

    def close(self) -> None:
        self.let_go()
        self._proxy.close()


@pytest.fixture
def holding(consul: Consul) -> Iterator[Holding]:
    made = Holding(consul)
    yield made
    made.close()


class OtherClock(TCPProxy):
    """A proxy before an engine whose clock is so many `seconds` ahead."""

    seconds = 0

    def answer(self, data: bytes) -> bytes:
        return re.sub(rb'(?<="timeNano":)\d+', self._moved, data)

    def _moved(self, match: re.Match[bytes]) -> bytes:
        return b"%d" % (int(match[0]) + self.seconds * 10**9)


@pytest.fixture
def other_clock(clean_engine: Dockerd) -> Iterator[OtherClock]:
    made = OtherClock(clean_engine.host)
    yield made
    made.close()


def test_down(
    clean_engine: Dockerd, consul: Consul, watched: Watched, prometheus: Prometheus
) -> None:
    agent = watched(f"consul://{consul.address}")
    agent.signal(signal.SIGTERM)
    assert agent.exited() == 0
    prometheus.fires("RegistratorDown")
    agent.start()
    ends(prometheus, "RegistratorDown")


def test_engine_down(
    clean_engine: Dockerd, consul: Consul, watched: Watched, prometheus: Prometheus
) -> None:
    watched(f"consul://{consul.address}")
    clean_engine.stop()
    prometheus.fires("RegistratorEngineDown")
    clean_engine.start()
    ends(prometheus, "RegistratorEngineDown")


def test_registry_down(
    clean_engine: Dockerd, consul: Consul, watched: Watched, prometheus: Prometheus
) -> None:
    watched(f"consul://{consul.address}")
    consul.stop()
    prometheus.fires("RegistratorRegistryDown")
    consul.start()
    ends(prometheus, "RegistratorRegistryDown")


def test_not_registered(
    clean_engine: Dockerd, consul: Consul, watched: Watched, prometheus: Prometheus
) -> None:
    watched(f"consul://{consul.address}")
    bad = clean_engine.api.run("bad", publish_all=True, env={"SERVICE_NAME": ".."})
    prometheus.fires("RegistratorNotRegistered")
    clean_engine.api.kill(bad)
    ends(prometheus, "RegistratorNotRegistered")


def test_diverged(
    clean_engine: Dockerd, holding: Holding, watched: Watched, prometheus: Prometheus
) -> None:
    """A write that hangs. So its call is stuck, and in the end the change has been slow, too."""
    watched(holding.uri)
    holding.hold(f"PUT {REGISTER}")
    clean_engine.api.run("web", publish_all=True)
    prometheus.fires("RegistratorDiverged", "RegistratorStuck")
    holding.let_go()
    ends(prometheus, "RegistratorDiverged", "RegistratorStuck", "RegistratorSlow")


def test_stuck(
    clean_engine: Dockerd, holding: Holding, watched: Watched, prometheus: Prometheus
) -> None:
    """A listing that hangs while nothing is to be written, so the registry stays in step."""
    watched("-resync", "1", holding.uri)
    holding.hold("GET ")
    prometheus.fires("RegistratorStuck")
    holding.let_go()
    ends(prometheus, "RegistratorStuck")


def test_slow(
    clean_engine: Dockerd, holding: Holding, watched: Watched, prometheus: Prometheus
) -> None:
    watched(holding.uri)
    holding.hold(f"PUT {REGISTER}", seconds=6)
    clean_engine.api.run("web", publish_all=True)
    ends(prometheus, "RegistratorSlow")


def test_drift(
    clean_engine: Dockerd, consul: Consul, watched: Watched, prometheus: Prometheus
) -> None:
    """Somebody else removes our entries as soon as they stand."""
    watched("-resync", "1", f"consul://{consul.address}")
    for number in range(4):
        clean_engine.api.run(f"web{number}", publish_all=True)

    def drifts() -> bool:
        for key in consul.api("agent/services"):
            put(consul, f"agent/service/deregister/{key}")
        return prometheus.firing() == {"RegistratorDrift"}

    until(drifts, lambda: f"drift alone, not {prometheus.firing()}")
    ends(prometheus, "RegistratorDrift")


def test_clock(
    clean_engine: Dockerd,
    consul: Consul,
    other_clock: OtherClock,
    watched: Watched,
    prometheus: Prometheus,
) -> None:
    """Events go on in the end, so it is the lag that ends the alert."""
    host = f"tcp://{other_clock.address}"
    watched(f"consul://{consul.address}", docker_host=host)
    web = clean_engine.api.run("web", publish_all=True)
    numbers = itertools.count()

    def fires(*alerts: str) -> bool:
        clean_engine.api.rename(web, f"web{next(numbers)}")
        return prometheus.firing() == {*alerts}

    other_clock.seconds = 10
    until(lambda: fires("RegistratorClock"), lambda: f"the clock, and not {prometheus.firing()}")
    other_clock.seconds = 0
    until(fires, lambda: f"nothing, and not {prometheus.firing()}")
    ends(prometheus, "RegistratorClock")
