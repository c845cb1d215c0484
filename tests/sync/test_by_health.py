"""A registry that cannot show the health of services: which entries it has, and what waits."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
from support.fakes import FakeBackend, FakeRegistry, lost

from registrator.backend import SessionLost
from registrator.model import ContainerHealth, Identity, Reason, Service, Snapshot
from registrator.status.report import RegistryReport, Written
from registrator.sync.reconciler import Reconciler

HOST = Identity("engine-1", "h")
NONE, STARTING, HEALTHY, UNHEALTHY = ContainerHealth
WEB = Service("h:web:80", "web", "127.0.0.7", 1000, 80, container_name="web")


class Bench:
    """A reconciler over a registry in memory, with one service."""

    def __init__(self, registry: FakeRegistry | None = None, *, cleanup: bool = True) -> None:
        self.registry = registry or FakeRegistry()
        self.now = 0.0
        self.report = RegistryReport("fake://", lambda: self.now)
        self.reconciler = Reconciler(
            self.report, lambda *_: FakeBackend(self.registry, HOST), HOST,
            cleanup=cleanup, clock=lambda: self.now,
        )  # fmt: skip

    def step(self, health: ContainerHealth | None, *, complete: bool = True) -> Written:
        """One step with the service in this health, or without it."""
        services = {WEB.id: replace(WEB, health=health)} if health else {}
        own = frozenset({WEB.address})
        self.reconciler.publish(Snapshot(services, own, complete, host_addresses=own))
        return self.reconciler.step()

    def resync(self) -> Written:
        """One step with a listing, and without a change."""
        self.now += 100
        return self.reconciler.step()

    def stands(self) -> bool:
        """Whether the entry stands."""
        return WEB.id in self.registry.entries

    def reason(self) -> Reason | None:
        """Why the service is not registered."""
        found = self.report.row.problems.get(WEB.id)
        return found.reason if found else None


def test_a_new_service_waits_until_it_is_healthy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench()
    assert bench.step(STARTING) == (0, 0)
    assert not bench.stands()
    assert bench.reason() is Reason.STARTING
    assert bench.resync() == (0, 0)
    [line] = [each for each in caplog.records if "is not registered" in each.message]
    assert line.levelno == logging.INFO
    assert Reason.STARTING.value in line.message
    assert bench.step(HEALTHY) == (1, 0)
    assert bench.reason() is None
    assert bench.report.row.registered == 1


def test_an_unhealthy_service_goes_and_returns(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.step(HEALTHY)
    assert bench.step(UNHEALTHY) == (0, 1)
    assert bench.reason() is Reason.UNHEALTHY
    [line] = [each for each in caplog.records if "is not registered" in each.message]
    assert line.levelno == logging.WARNING
    assert bench.resync() == (0, 0)
    assert bench.step(HEALTHY) == (1, 0)
    assert bench.report.row.in_sync


def test_what_stands_stays_while_it_is_starting() -> None:
    bench = Bench()
    bench.step(HEALTHY)
    assert bench.step(STARTING) == (0, 0)
    assert bench.resync() == (0, 0)
    assert bench.stands()
    assert bench.reason() is None


def test_what_stands_while_it_is_starting_is_taken_over_by_a_new_agent() -> None:
    registry = FakeRegistry()
    Bench(registry).step(HEALTHY)
    later = Bench(registry)
    assert later.step(STARTING) == (0, 0)
    assert later.resync() == (0, 0)
    assert later.stands()


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("cleanup", [True, False])
def test_what_turned_unhealthy_without_an_agent_goes(cleanup: bool, complete: bool) -> None:
    """It is no dangling entry: its service runs, and is known to be unhealthy."""
    registry = FakeRegistry()
    Bench(registry).step(HEALTHY)
    later = Bench(registry, cleanup=cleanup)
    assert later.step(UNHEALTHY, complete=complete) == (0, 1)


def test_a_starting_service_that_the_registry_lost_returns() -> None:
    bench = Bench()
    bench.step(HEALTHY)
    bench.step(STARTING)
    bench.registry.entries.clear()
    assert bench.resync() == (1, 0)
    bench.registry.entries.clear()
    bench.registry.faults = [lost()]
    with pytest.raises(SessionLost):
        bench.resync()
    assert bench.resync() == (1, 0)


def test_a_restarted_container_waits_again() -> None:
    bench = Bench()
    bench.step(HEALTHY)
    assert bench.step(None) == (0, 1)
    assert bench.step(STARTING) == (0, 0)
    assert not bench.stands()
    assert bench.step(HEALTHY) == (1, 0)
    bench.step(UNHEALTHY)
    assert bench.step(STARTING) == (0, 0)
    assert bench.reason() is Reason.STARTING


def test_others_entries_stay() -> None:
    registry = FakeRegistry({WEB.id: ("theirs", "engine-2", WEB)})
    bench = Bench(registry)
    for health in (STARTING, UNHEALTHY, HEALTHY):
        assert bench.step(health) == (0, 0)
    assert registry.entries == {WEB.id: ("theirs", "engine-2", WEB)}
    assert bench.reason() is Reason.OTHERS_ENTRY


def test_a_service_without_a_health_check_is_as_ever() -> None:
    bench = Bench()
    assert bench.step(NONE) == (1, 0)
    assert "health" not in json.loads(bench.registry.entries[WEB.id][0])
