"""Docker's health as a check of a service, on a real Consul, and the requests that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.consul import OWNER, backend, put, register, service
from support.proxy import RecordingHTTPProxy
from support.servers import Consul

from registrator.backend import Backend
from registrator.model import ContainerHealth, Identity, Mark, Plan, Service, Snapshot
from registrator.status.report import RegistryReport, Written
from registrator.sync.reconciler import Reconciler

NONE, STARTING, HEALTHY, UNHEALTHY = ContainerHealth
CHECK = "registrator-health:host:c1:80"
UPDATE = f"/v1/agent/check/update/{CHECK}"
REGISTER = "/v1/agent/service/register"
OWN = service(1, {"check_ttl": "1h"})


@pytest.fixture
def watched(consul: Consul) -> Iterator[RecordingHTTPProxy]:
    made = RecordingHTTPProxy(consul.address)
    yield made
    made.close()


class Agent:
    """The reconciler of an agent with one service, that sees no time pass by itself."""

    def __init__(self, watched: RecordingHTTPProxy, **context: Any) -> None:
        self.now = 0.0
        self.done = Written()
        self._watched = watched
        self._backend = backend(f"consul://{watched.address}", **context)
        self._reconciler = Reconciler(
            RegistryReport("consul://"), lambda *_: self._backend, Identity(OWNER, "host"),
            clock=lambda: self.now,
        )  # fmt: skip

    def writes(self, wanted: Service | None = None) -> list[str]:
        """The paths that a step writes to: one with this service, or a resync."""
        before = len(self._watched.writes)
        if wanted is None:
            self.now += 100
        else:
            own = frozenset({wanted.address})
            self._reconciler.publish(Snapshot({wanted.id: wanted}, own, host_addresses=own))
        self.done = self._reconciler.step()
        return [request.path.partition("?")[0] for request in self._watched.writes[before:]]

    def close(self) -> None:
        self._backend.close()


@pytest.fixture
def agent(watched: RecordingHTTPProxy) -> Iterator[Agent]:
    made = Agent(watched)
    yield made
    made.close()


def statuses(consul: Consul) -> dict[str, str]:
    """The status of each check of our service."""
    checks = consul.api("agent/checks").items()
    return {key: each["Status"] for key, each in checks if each["ServiceID"] == OWN.id}


def test_the_life_of_a_check(agent: Agent, consul: Consul) -> None:
    own = f"service:{OWN.id}"
    assert agent.writes(replace(OWN, health=STARTING)) == [REGISTER]
    assert statuses(consul) == {own: "critical", CHECK: "critical"}
    put(consul, f"agent/check/pass/{own}")
    assert agent.writes() == []
    assert agent.writes(replace(OWN, health=HEALTHY)) == [UPDATE]
    assert statuses(consul) == {own: "passing", CHECK: "passing"}
    assert agent.writes() == []
    # A restart of the engine with live-restore.
    assert agent.writes(replace(OWN, health=STARTING)) == []
    assert agent.writes() == []
    assert agent.writes(replace(OWN, health=HEALTHY)) == []
    assert agent.writes(replace(OWN, health=UNHEALTHY)) == [UPDATE]
    assert statuses(consul) == {own: "passing", CHECK: "critical"}
    assert agent.writes() == []


def test_other_news_write_nothing(agent: Agent) -> None:
    for health, wrote in ((HEALTHY, 1), (HEALTHY, 0), (UNHEALTHY, 1), (UNHEALTHY, 0)):
        agent.writes(replace(OWN, health=health))
        assert agent.done == (wrote, 0)


def test_another_registration_keeps_the_status(agent: Agent, consul: Consul) -> None:
    assert agent.writes(replace(OWN, health=HEALTHY)) == [REGISTER, UPDATE]
    tagged = replace(OWN, tags=("new",))
    assert agent.writes(replace(tagged, health=STARTING)) == [REGISTER]
    assert statuses(consul)[CHECK] == "passing"
    both = replace(OWN, tags=("newer",), health=UNHEALTHY)
    assert agent.writes(both) == [REGISTER, UPDATE]
    assert statuses(consul)[CHECK] == "critical"
    assert agent.writes() == []


@pytest.mark.parametrize("health", [STARTING, HEALTHY])
def test_a_restarted_agent_writes_nothing(
    health: ContainerHealth, agent: Agent, watched: RecordingHTTPProxy, consul: Consul
) -> None:
    agent.writes(replace(OWN, health=HEALTHY))
    later = Agent(watched)
    assert later.writes(replace(OWN, health=health)) == []
    assert later.writes() == []
    later.close()
    assert statuses(consul)[CHECK] == "passing"


def test_a_change_without_an_agent_is_one_request(
    agent: Agent, watched: RecordingHTTPProxy, consul: Consul
) -> None:
    agent.writes(replace(OWN, health=HEALTHY))
    later = Agent(watched)
    assert later.writes(replace(OWN, health=UNHEALTHY)) == [UPDATE]
    later.close()
    assert statuses(consul)[CHECK] == "critical"


def test_the_status_outlives_a_restart_of_consul(agent: Agent, consul: Consul) -> None:
    agent.writes(replace(OWN, health=HEALTHY))
    consul.restart()
    assert statuses(consul)[CHECK] == "passing"


def test_the_option_comes_and_goes(agent: Agent, consul: Consul) -> None:
    agent.writes(OWN)
    assert agent.writes(replace(OWN, health=HEALTHY)) == [REGISTER, UPDATE]
    assert agent.writes(OWN) == [REGISTER, f"/v1/agent/check/deregister/{CHECK}"]
    assert statuses(consul).keys() == {f"service:{OWN.id}"}
    assert agent.writes() == []
    assert agent.writes(replace(OWN, health=UNHEALTHY)) == [REGISTER]
    assert statuses(consul)[CHECK] == "critical"


def test_what_somebody_else_changed_is_put_right(agent: Agent, consul: Consul) -> None:
    agent.writes(replace(OWN, health=HEALTHY))
    put(consul, f"agent/check/fail/{CHECK}")
    assert agent.writes() == [UPDATE]
    put(consul, f"agent/check/deregister/{CHECK}")
    assert agent.writes() == [REGISTER, UPDATE]
    put(consul, f"agent/service/deregister/{OWN.id}")
    # This change comes before the listing that would show the loss.
    assert agent.writes(replace(OWN, health=UNHEALTHY)) == [UPDATE, REGISTER, UPDATE]
    assert statuses(consul)[CHECK] == "critical"
    assert agent.writes() == []


def test_maintenance_and_the_checks_of_a_ttl_stay(
    watched: RecordingHTTPProxy, consul: Consul
) -> None:
    agent = Agent(watched, ttl=30, ttl_refresh=10)
    agent.writes(replace(OWN, health=HEALTHY))
    put(consul, f"agent/service/maintenance/{OWN.id}?enable=true")
    standing = statuses(consul)
    assert standing.keys() == {
        f"service:{OWN.id}", CHECK, f"registrator:{OWN.id}", f"_service_maintenance:{OWN.id}",
    }  # fmt: skip
    assert agent.writes(replace(OWN, health=UNHEALTHY)) == [UPDATE]
    assert statuses(consul) == standing | {CHECK: "critical"}
    agent.writes(replace(OWN, health=UNHEALTHY, tags=("new",)))
    assert statuses(consul) == standing | {CHECK: "critical"}
    agent.close()


def test_a_check_of_somebody_else_is_not_replaced(
    watched: RecordingHTTPProxy, consul: Consul
) -> None:
    put(consul, "agent/check/register", {"ID": CHECK, "Name": "theirs", "TTL": "1h"})
    ours: Backend = backend(f"consul://{watched.address}")
    ours.list()
    wanted = ours.entry(replace(OWN, health=HEALTHY))
    [(key, why)] = ours.apply(Plan((wanted,))).items()
    assert key == OWN.id
    assert CHECK in why
    put(consul, f"agent/check/deregister/{CHECK}")
    ours.list()
    assert register(ours, replace(OWN, health=HEALTHY))
    [found] = ours.list().values()
    assert (found.mark, found.status) == (Mark.OURS, "passing")
    ours.close()
