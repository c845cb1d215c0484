"""The health of containers: for which services it counts, and what an event about it causes."""

from __future__ import annotations

import time

import pytest
from support.fakes import FakeEngine, container

from registrator.desired.inventory import Inventory
from registrator.desired.left_out import lines
from registrator.desired.rules import Rules
from registrator.desired.services import services
from registrator.model import ContainerHealth, Event, Port, Reason, Snapshot

NONE, STARTING, HEALTHY, UNHEALTHY = ContainerHealth
TWO_PORTS = (Port(80, "tcp", "", 1080), Port(443, "tcp", "", 1443))
RULES = Rules(hostname="h", forced_ip="127.0.0.7", health=True)


def healths(rules: Rules = RULES, **env: str) -> list[ContainerHealth]:
    """The health of each service of an unhealthy container with two ports."""
    made = container("web", ports=TWO_PORTS, env=env, health=UNHEALTHY)
    return [service.health for service in services(made, rules).services]


def test_counts_only_with_the_option() -> None:
    assert healths() == [UNHEALTHY, UNHEALTHY]
    assert healths(Rules(hostname="h", forced_ip="127.0.0.7")) == [NONE, NONE]


def test_a_container_and_a_port_opt_out() -> None:
    assert healths(SERVICE_HEALTH="false") == [NONE, NONE]
    assert healths(SERVICE_443_HEALTH="false") == [UNHEALTHY, NONE]
    assert healths(SERVICE_HEALTH="0", SERVICE_443_HEALTH="true") == [NONE, UNHEALTHY]
    assert healths(SERVICE_HEALTH=" ") == [UNHEALTHY, UNHEALTHY]


def test_the_key_is_no_attribute() -> None:
    made = container("web", env={"SERVICE_HEALTH": "false"})
    [service] = services(made, RULES).services
    assert service.attrs == {}


@pytest.mark.parametrize("key", ["SERVICE_HEALTH", "SERVICE_443_HEALTH"])
def test_a_wrong_value_leaves_the_service_out(key: str) -> None:
    made = container("web", ports=TWO_PORTS, env={key: "maybe"}, health=HEALTHY)
    offer = services(made, RULES)
    kept = [] if key == "SERVICE_HEALTH" else [80]
    assert [service.private_port for service in offer.services] == kept
    assert {each.reason for each in offer.left_out} == {Reason.REJECTED}
    [(_, line, _)] = lines(made, offer.left_out)
    assert "container web" in line
    assert key in line


def test_the_health_is_no_part_of_a_record() -> None:
    """Registries that take JSON hold what they always held."""
    records = [
        services(container("web", health=health), RULES).services[0].record
        for health in (NONE, HEALTHY)
    ]
    assert records[0] == records[1]


class Stock:
    """An inventory that has seen its one container."""

    def __init__(self, health: ContainerHealth) -> None:
        self.engine = FakeEngine(container("web", health=health))
        self.published: list[Snapshot] = []
        self.inventory = Inventory(self.engine, RULES, self.published.append)
        self.inventory.resync()
        self.inventory.step()
        self.engine.inspected.clear()

    @property
    def health(self) -> ContainerHealth:
        """The health in the last snapshot."""
        return self.published[-1].services["h:web:80"].health

    def mark(self, event: Event) -> bool:
        """Take in an event. Returns whether there was something to do."""
        due = self.inventory.mark(event)
        self.inventory.step()
        return due


def test_a_probe_that_tells_nothing_new_costs_no_request() -> None:
    stock = Stock(HEALTHY)
    for _ in range(3):
        assert not stock.mark(stock.engine.probe(container("web").id, HEALTHY))
    assert stock.engine.inspected == []
    assert stock.mark(stock.engine.probe(container("web").id, UNHEALTHY))
    assert len(stock.engine.inspected) == 1
    assert stock.health is UNHEALTHY


def test_a_probe_that_does_not_tell_the_health_is_looked_at() -> None:
    stock = Stock(STARTING)
    stock.engine.probe(container("web").id, HEALTHY)
    assert stock.mark(Event(container("web").id, "health_status", 5))
    assert stock.health is HEALTHY


def test_a_probe_that_tells_the_health_before_it_is_noticed_with_the_next_one() -> None:
    """As Podman's do."""
    stock = Stock(STARTING)
    stock.engine.probe(container("web").id, HEALTHY)
    assert not stock.mark(Event(container("web").id, "health_status", 5, health=STARTING))
    assert stock.mark(Event(container("web").id, "health_status", 6, health=HEALTHY))
    assert stock.health is HEALTHY


def test_a_change_and_its_return_during_one_look() -> None:
    """The second event tells what is known, but another health is just being taken in."""
    stock = Stock(HEALTHY)
    web = container("web").id
    inspect = stock.engine.inspect

    def late(container_id: str, timeout: float | None = None) -> object:
        answer = inspect(container_id, timeout)
        stock.engine.inspect = inspect  # type: ignore[method-assign]
        stock.inventory.mark(stock.engine.probe(web, HEALTHY))
        return answer

    stock.engine.inspect = late  # type: ignore[assignment, method-assign]
    stock.mark(stock.engine.probe(web, UNHEALTHY))
    assert len(stock.engine.inspected) == 1
    stock.inventory.step()
    assert stock.health is HEALTHY


def test_a_missed_change_is_found_by_a_listing() -> None:
    stock = Stock(HEALTHY)
    stock.engine.probe(container("web").id, UNHEALTHY)
    stock.inventory.resync()
    stock.inventory.step()
    assert stock.health is UNHEALTHY


def looks(*seen: tuple[ContainerHealth, int], started_at: int = 1) -> ContainerHealth:
    """The health after looks that found a health and the end of the last probe.

    The last look found the run that began at `started_at`.
    """
    stock = Stock(STARTING)
    web = container("web").id
    for number, (health, probed_at) in enumerate(seen, 1):
        began = started_at if number == len(seen) else 1
        found = container("web", health=health, probed_at=probed_at, started_at=began)
        stock.engine.containers[web] = found
        assert stock.mark(Event(web, "rename", 5))
    return stock.health


def test_a_newer_probe_counts() -> None:
    assert looks((HEALTHY, 10), (UNHEALTHY, 11)) is UNHEALTHY
    assert looks((HEALTHY, 10), (UNHEALTHY, 11), (HEALTHY, 12)) is HEALTHY


@pytest.mark.parametrize("probed_at", [0, 9, 10])
@pytest.mark.parametrize("told", [STARTING, UNHEALTHY, NONE])
def test_an_engine_does_not_go_back_to_the_past(told: ContainerHealth, probed_at: int) -> None:
    """As a restarted one with live-restore may."""
    assert looks((HEALTHY, 10), (told, probed_at)) is HEALTHY
    assert looks((HEALTHY, 10), (told, probed_at), (UNHEALTHY, 11)) is UNHEALTHY


def test_another_run_of_a_container_has_a_health_of_its_own() -> None:
    assert looks((HEALTHY, 10), (STARTING, 10), started_at=2) is STARTING


def test_without_the_time_of_probes_each_health_counts() -> None:
    assert looks((HEALTHY, 0), (UNHEALTHY, 0)) is UNHEALTHY


def test_a_clock_that_was_put_back_hides_no_health() -> None:
    to_come = time.time_ns() + 3600 * 10**9
    assert looks((HEALTHY, to_come), (UNHEALTHY, 11)) is UNHEALTHY
