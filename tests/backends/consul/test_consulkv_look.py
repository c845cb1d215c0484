"""A look at this host's keys in Consul's store: what it notices, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from support.consul import backend, put, register, service, set_key
from support.proxy import RecordingHTTPProxy, TCPProxy
from support.servers import Consul

from registrator.backend import Backend
from registrator.model import Mark, Plan, Service
from registrator.sync.plan import Here, diff

NUMBERS = count()
OWN = "127.9.0.1"
HERE = Here("host", frozenset({OWN}), frozenset({OWN}))
TTL = {"ttl": 10, "ttl_refresh": 5}

Make = Callable[..., Backend]


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    consul = Consul(tmp_path_factory.mktemp("consul"))
    consul.start()
    yield consul
    consul.kill()


@pytest.fixture
def proxy(consul: Consul) -> Iterator[RecordingHTTPProxy]:
    proxy = RecordingHTTPProxy(consul.address)
    yield proxy
    proxy.close()


@pytest.fixture
def prefix() -> str:
    return f"looks{next(NUMBERS)}"


@pytest.fixture
def make(proxy: RecordingHTTPProxy, prefix: str) -> Iterator[Make]:
    """Makes backends at the test's own prefix."""
    made: list[Backend] = []

    def create(owner: str = "us", address: str = "", **context: Any) -> Backend:
        made.append(backend(f"consulkv://{address or proxy.address}/{prefix}", owner, **context))
        return made[-1]

    yield create
    for each in made:
        each.close()


def plan_for(ours: Backend, *services: Service) -> Plan:
    desired = {entry.key: entry for entry in map(ours.entry, services)}
    return diff(desired, ours.list(desired), HERE, dangling=lambda _: True)


def settle(ours: Backend, *services: Service) -> Plan:
    """One round as the reconciler does it. Returns what it wrote."""
    plan = plan_for(ours, *services)
    assert ours.apply(plan) == {}
    return plan


def asked(proxy: RecordingHTTPProxy) -> list[list[tuple[str, str]]]:
    """The operations of each transaction since the last call. There must be no other request."""
    requests, proxy.requests[:] = proxy.requests[:], []
    assert {each.path for each in requests} <= {"/v1/txn"}
    bodies = [json.loads(each.body) for each in requests]
    return [[(each["KV"]["Verb"], each["KV"]["Key"]) for each in body] for body in bodies]


def values_read(proxy: RecordingHTTPProxy) -> list[str]:
    """The keys that were read with their values."""
    found = (each for body in asked(proxy) for each in body)
    return [key for verb, key in found if verb.startswith("get")]


def test_a_look_without_a_change_reads_no_value(make: Make, proxy: RecordingHTTPProxy) -> None:
    """100 services, 64 operations a transaction."""
    services = [service(n) for n in range(100)]
    ours = make()
    settle(ours, *services)
    proxy.requests.clear()
    for _ in range(3):
        assert not plan_for(ours, *services)
        bodies = asked(proxy)
        assert len(bodies) == 2
        assert {verb for body in bodies for verb, _ in body} == {"check-index", "check-not-exists"}


def altered(consul: Consul, key: str) -> None:
    set_key(consul, key, f"{OWN}:1", flags=consul.api(f"kv/{key}")[0]["Flags"])


def unmarked(consul: Consul, key: str) -> None:
    set_key(consul, key, "127.8.8.8:1")


def deleted(consul: Consul, key: str) -> None:
    put(consul, f"kv/{key}", method="DELETE")


@pytest.mark.parametrize("context", [{}, TTL], ids=["", "ttl"])
@pytest.mark.parametrize("change", [altered, unmarked, deleted])
def test_what_changes_between_two_looks_is_put_right(
    make: Make, consul: Consul, proxy: RecordingHTTPProxy, change: Callable[[Consul, str], None],
    context: dict[str, float],
) -> None:  # fmt: skip
    """Only the keys that changed are read."""
    services = [service(n) for n in range(80)]
    ours = make(**context)
    settle(ours, *services)
    keys = [ours.entry(each).key for each in (services[3], services[77])]
    for key in keys:
        change(consul, key)
    proxy.requests.clear()
    found = ours.list({ours.entry(each).key for each in services})
    assert sorted(values_read(proxy)) == sorted(keys)
    assert len(found) == (78 if change is deleted else 80)
    assert ours.apply(Plan(tuple(map(ours.entry, (services[3], services[77]))))) == {}
    assert not plan_for(ours, *services)
    if not context:
        assert not plan_for(make(), *services)


def test_a_session_that_vanished_between_two_looks(
    make: Make, consul: Consul, proxy: RecordingHTTPProxy, prefix: str
) -> None:
    """As of an agent that was cut off for longer than the TTL: Consul removed all keys."""
    services = [service(n) for n in range(70)]
    former, ours = make(**TTL), make(**TTL)
    settle(former, *services)
    assert len(ours.list()) == 70
    (row,) = consul.api(f"kv/{ours.entry(services[0]).key}")
    put(consul, f"session/destroy/{row['Session']}")
    plan = settle(ours, *services)
    assert len(plan.register) == 70
    assert len(consul.api(f"kv/{prefix}/?keys")) == 70
    assert not plan_for(ours, *services)


@pytest.mark.parametrize("theirs", ["them", ""])
def test_somebody_else_takes_a_key_between_two_looks(
    make: Make, consul: Consul, prefix: str, theirs: str
) -> None:
    """It is a conflict, and the key stays theirs when the container ends."""
    ours = make()
    settle(ours, service(1), service(2))
    ours.list()
    entry = ours.entry(service(1))
    settle(ours, service(2))
    if theirs:
        register(make(theirs), service(1, port=7))
    else:
        set_key(consul, entry.key, "127.8.8.8:7")
    (before,) = consul.api(f"kv/{entry.key}")
    for _ in range(2):
        plan = settle(ours, service(1), service(2))
        assert list(plan.conflicts) == [entry.key]
    settle(ours, service(2))
    assert consul.api(f"kv/{entry.key}") == [before]
    assert ours.list([entry.key])[entry.key].mark is (Mark.OTHERS if theirs else Mark.NONE)


def test_another_server_is_read_anew(consul: Consul, make: Make, proxy: RecordingHTTPProxy) -> None:
    """It may have other keys with the same indexes, as after a restore of old data."""
    second = RecordingHTTPProxy(consul.address)
    ours = make(address=f"{second.address},{proxy.address}")
    services = [service(n) for n in range(3)]
    settle(ours, *services)
    proxies = {second: proxy, proxy: second}
    busy = max(proxies, key=lambda each: len(each.requests))
    assert not plan_for(ours, *services)
    busy.close()
    other = proxies[busy]
    assert not plan_for(ours, *services)
    other.requests.clear()
    assert not plan_for(ours, *services)
    assert len(values_read(other)) == 4
    assert not plan_for(ours, *services)
    assert values_read(other) == []
    second.close()


def measured(consul: Consul, prefix: str, services: Sequence[Service]) -> tuple[int, int, int]:
    """Connections, and bytes to and from Consul: of a start, some resyncs, and new services."""
    proxy = TCPProxy(consul.address)
    ours = backend(f"consulkv://{proxy.address}/{prefix}", "us")
    for wanted in (services[:-1], services[:-1], services, services, services[:-1]):
        settle(ours, *wanted)
    ours.close()
    proxy.close()
    return proxy.connections, proxy.sent, proxy.received


@pytest.mark.parametrize("name", ["web", ""], ids=["one-name", "many-names"])
def test_the_cost_does_not_depend_on_other_hosts(consul: Consul, prefix: str, name: str) -> None:
    """They run the same services, under the same names."""
    services = [service(n, name=name or f"web{n % 50}") for n in range(90)]
    measured(consul, prefix, services)
    alone = measured(consul, prefix, services)
    for start in range(0, 6400, 64):
        put(consul, "txn", [
            {"KV": {"Verb": "set", "Flags": 9, "Value": "MTI3LjguOC44OjgwMDA=",
                    "Key": f"{prefix}/{name or f'web{number % 50}'}/other{number // 100}:c:80"}}
            for number in range(start, start + 64)
        ])  # fmt: skip
    among_others = measured(consul, prefix, services)
    assert among_others[0] == alone[0]
    # Consul's indexes are numbers, which get longer.
    assert among_others[1] <= alone[1] * 1.1
    assert among_others[2] <= alone[2] * 1.1


def test_the_originals_keys_of_ended_containers(
    make: Make, consul: Consul, proxy: RecordingHTTPProxy, prefix: str
) -> None:
    """The original ran once more after the manifest was made, as in a trial.

    Under a name that runs here, they are found. The documents tell how to have the others found.
    """
    settle(make(), service(1))
    here, elsewhere = f"{prefix}/web1/host:old:80", f"{prefix}/gone/host:old:80"
    others = f"{prefix}/web1/host:far:80", f"{prefix}/web1/host2:old:80"
    for key in (here, elsewhere):
        set_key(consul, key, f"{OWN}:9")
    for key in others:
        set_key(consul, key, "127.8.8.8:9")
    proxy.requests.clear()
    ours = make()
    assert settle(ours, service(1)).deregister == (here,)
    assert [path for each in proxy.requests if "keys" in (path := each.path)] == []
    assert not settle(ours, service(1))
    put(consul, f"kv/.registrator/{prefix}/?recurse", method="DELETE")
    assert settle(make(), service(1)).deregister == (elsewhere,)
    assert set(consul.api(f"kv/{prefix}/?keys")) == {ours.entry(service(1)).key, *others}
