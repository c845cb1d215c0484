"""Other people's checks on our services stay, and a critical node does not remove our services."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.consul import Running, backend, put, register, service
from support.proxy import RecordingHTTPProxy, TCPProxy
from support.servers import Consul
from support.wait import until

from registrator.backend import Backend, SessionLost
from registrator.model import Plan, Service

ALIAS = "registrator:host:c1:80"


@pytest.fixture
def ours(consul: Consul) -> Iterator[Backend]:
    made = backend(f"consul://{consul.address}")
    yield made
    made.close()


@pytest.fixture
def watched(consul: Consul) -> Iterator[RecordingHTTPProxy]:
    made = RecordingHTTPProxy(consul.address)
    yield made
    made.close()


@pytest.fixture
def leased(watched: RecordingHTTPProxy) -> Iterator[Backend]:
    made = backend(f"consul://{watched.address}", ttl=30, ttl_refresh=10)
    yield made
    made.close()


@pytest.fixture
def full_disk(consul: Consul) -> Iterator[None]:
    """A critical check of the node, as one in maintenance has."""
    put(consul, "agent/check/register", {"Name": "disk", "TTL": "1h", "Status": "critical"})
    yield
    put(consul, "agent/check/deregister/disk")


def checks(consul: Consul) -> dict[str, str]:
    return {key: check["Status"] for key, check in consul.api("agent/checks").items()}


def paths(watched: RecordingHTTPProxy) -> list[str]:
    """The writes since the last call of this."""
    found = [each.path.removeprefix("/v1/agent/") for each in watched.writes]
    watched.requests.clear()
    return found


def test_a_resync_does_not_end_an_operators_maintenance(consul: Consul, ours: Backend) -> None:
    first = service(1, {"check_ttl": "1h", "check_initial_status": "passing"})
    register(ours, first)
    put(consul, "agent/service/maintenance/host:c1:80?enable=true&reason=work")
    theirs = {"ID": "theirs", "Name": "theirs", "TTL": "1h", "ServiceID": "host:c1:80"}
    put(consul, "agent/check/register", theirs)
    altered = {"ID": "host:c1:80", "Name": "altered", "Meta": {"registrator-owner": "7GZK:HOST"}}
    put(consul, "agent/service/register", altered)
    entry = ours.entry(first)
    assert ours.list()[entry.key].content != entry.content
    ours.apply(Plan((entry,)))
    assert ours.list()[entry.key].content == entry.content
    assert checks(consul).keys() == {
        "_service_maintenance:host:c1:80", "service:host:c1:80", "theirs",
    }  # fmt: skip


def test_our_own_checks_go_when_they_are_no_longer_wanted(consul: Consul) -> None:
    leased = backend(f"consul://{consul.address}", ttl=30, ttl_refresh=10)
    leased.list()
    register(leased, service(1, {"check_tcp": "1"}))
    register(leased, service(1))
    assert ALIAS in checks(consul)
    assert "service:host:c1:80" not in checks(consul)
    leased.close()
    ours = backend(f"consul://{consul.address}")
    ours.list()
    register(ours, service(1))
    assert not {ALIAS, "service:host:c1:80"} & checks(consul).keys()
    ours.close()


@pytest.mark.parametrize("listed", [False, True])
def test_a_check_of_another_type_takes_the_place_of_the_former_one(
    consul: Consul, ours: Backend, listed: bool
) -> None:
    """Consul would run both under one id, and the status would flap for ever."""
    former, clock = TCPProxy(consul.address), TCPProxy(consul.address)

    def probed(number: int, proxy: TCPProxy, kind: str) -> Service:
        host, _, port = proxy.address.partition(":")
        attrs = {f"check_{kind}": "/v1/status/leader", "check_interval": "1s"}
        return service(number, attrs, address=host, port=int(port))

    register(ours, probed(1, former, "http"), probed(2, clock, "http"))
    until(lambda: former.connections and clock.connections, "the first probes")
    if listed:
        ours.list()
    register(ours, replace(probed(1, former, "ttl"), attrs={"check_ttl": "1h"}))
    seen = clock.connections
    until(lambda: clock.connections > seen + 1, "a probe under way to end")
    before, seen = former.connections, clock.connections
    until(lambda: clock.connections > seen + 2, "several probes")
    assert former.connections == before
    for proxy in (former, clock):
        proxy.close()


def test_a_check_that_somebody_removes_meanwhile_is_no_fault(consul: Consul, ours: Backend) -> None:
    register(ours, service(1, {"check_tcp": "1"}))
    ours.list()
    put(consul, "agent/check/deregister/service:host:c1:80")
    register(ours, service(1))
    assert checks(consul) == {}


def test_a_refresh_starts_the_time_of_critical_checks_anew_and_writes_nothing_else(
    consul: Consul, leased: Backend, watched: RecordingHTTPProxy, full_disk: None
) -> None:
    """Consul removes a service that is critical for a minute, and follows the node's checks."""
    register(leased, service(1), service(2))
    followers = {ALIAS, "registrator:host:c2:80"}
    until(lambda: {checks(consul)[each] for each in followers} == {"critical"}, "critical checks")
    paths(watched)
    leased.keepalive()
    assert paths(watched)[1:] == ["check/register", "check/register", "service/register"]
    put(consul, "agent/check/pass/disk")

    def passing() -> bool:
        leased.keepalive()
        return {checks(consul)[each] for each in followers} == {"passing"}

    until(passing, "passing checks")
    paths(watched)
    leased.keepalive()
    assert paths(watched) == ["check/pass/service:registrator:7GZK:HOST:host"]
    assert leased.list()["host:c1:80"].content == leased.entry(service(1)).content


@pytest.mark.parametrize("path", ["service/deregister/host:c1:80", f"check/deregister/{ALIAS}"])
def test_a_service_that_is_missing_at_a_refresh_is_a_lost_session(
    consul: Consul, leased: Backend, path: str
) -> None:
    register(leased, service(1), service(2))
    leased.keepalive()
    put(consul, f"agent/{path}")
    with pytest.raises(SessionLost, match="host:c1:80"):
        leased.keepalive()
    leased.list()
    register(leased, service(1))
    leased.keepalive()
    leased.apply(Plan((), ("host:c1:80",)))
    leased.keepalive()


def test_a_service_that_is_missing_at_a_refresh_is_registered_again(consul: Consul) -> None:
    wanted = {"host:c1:80", "host:c2:80"}
    uri, context = f"consul://{consul.address}", {"ttl": 30, "ttl_refresh": 0.5}
    running = Running(uri, service(1), service(2), **context)

    def stands() -> bool:
        return wanted <= set(consul.api("agent/services"))

    try:
        until(stands, "the services")
        for path in ("service/deregister/host:c1:80", f"check/deregister/{ALIAS}"):
            put(consul, f"agent/{path}")
            until(lambda: ALIAS in checks(consul) and stands(), "all again")
    finally:
        running.stop()


def test_somebody_elses_check_is_not_registered_again(consul: Consul, leased: Backend) -> None:
    register(leased, service(1))
    body = {"ID": "theirs", "Name": "theirs", "Check": {"TTL": "1h", "Status": "critical"}}
    put(consul, "agent/service/register", body)
    leased.keepalive()
    assert checks(consul)["service:theirs"] == "critical"
    put(consul, "agent/service/deregister/theirs")


def test_the_services_stay_alive_while_the_reconciler_is_busy(consul: Consul) -> None:
    """It is in a large write, or waits for an attempt, for several times the TTL."""
    ours = backend(f"consul://{consul.address}", ttl=1, ttl_refresh=0.2)
    register(ours, service(1))
    for number in range(3):
        name = f"twin{number}"
        put(consul, "agent/check/register", {"Name": name, "TTL": "1s", "Status": "passing"})

        def over(name: str = name) -> bool:
            return checks(consul)[name] == "critical"

        until(over, "the end of a TTL that nobody kept alive")
        assert checks(consul)["service:registrator:7GZK:HOST:host"] == "passing"
        put(consul, f"agent/check/deregister/{name}")
    ours.close()
    woken = threading.Event()
    again = backend(f"consul://{consul.address}", ttl=1, ttl_refresh=0.2, wake=woken.set)
    register(again, service(1))
    put(consul, "agent/service/deregister/registrator:7GZK:HOST:host")
    until(woken.is_set, "a loss to be told")
    again.close()
