"""Whose an entry at a Consul agent is: ours, a clone's, version 1.0.0's, the original's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.consul import OWNER, backend, pair, put, register, service
from support.proxy import TCPProxy
from support.servers import Consul
from support.wait import until

from registrator.backend import Backend
from registrator.model import Identity, Mark, Plan
from registrator.sync.plan import Here, by_key, diff

HERE = Here("host", frozenset({"127.9.0.1"}), frozenset({"127.9.0.1"}))
CLONE = Identity(OWNER, "clone")


def release_one(number: int, **changes: Any) -> dict[str, Any]:
    """The body that version 1.0.0 registers for `service(number)`, with ``-ttl``."""
    of = service(number, **changes)
    life = {"Status": "passing", "DeregisterCriticalServiceAfter": "60s"}
    alias = {"AliasService": f"registrator:{OWNER}", "Name": "Registrator on its host is alive"}
    return {
        "ID": of.id, "Name": of.name, "Address": of.address, "Port": of.port,
        "Tags": list(of.tags), "Meta": {"registrator-owner": OWNER},
        "Checks": [alias | life | {"CheckID": f"registrator:{of.id}"}],
    }  # fmt: skip


def planned(ours: Backend, *numbers: int) -> Plan:
    """The plan that the reconciler would make for these services."""
    desired, _ = by_key([ours.entry(service(number)) for number in numbers])
    return diff(desired, ours.list(), HERE, dangling=lambda _: True)


@pytest.fixture
def ours(consul: Consul) -> Iterator[Backend]:
    made = backend(f"consul://{consul.address}")
    yield made
    made.close()


@pytest.fixture
def clone(consul: Consul) -> Iterator[Backend]:
    made = backend(f"consul://{consul.address}", CLONE, ttl=30, ttl_refresh=10)
    yield made
    made.close()


def test_two_hosts_with_one_engine_id_leave_each_other_alone(
    consul: Consul, clone: Backend
) -> None:
    ours = backend(f"consul://{consul.address}", ttl=30, ttl_refresh=10)
    theirs = service(2, id="clone:c2:80", address="127.9.0.2")
    register(clone, theirs)
    register(ours, service(1))
    before = consul.api("agent/services"), consul.api("agent/checks")
    found = ours.list()[theirs.id]
    assert (found.mark, found.host) == (Mark.TWIN, "clone")
    assert not planned(ours, 1)
    assert clone.list()["host:c1:80"].mark is Mark.TWIN
    assert (consul.api("agent/services"), consul.api("agent/checks")) == before
    ours.close()


def test_the_death_of_one_clone_is_not_hidden_by_the_other(consul: Consul, clone: Backend) -> None:
    """Both keep the entries alive by a check of their own."""
    ours = backend(f"consul://{consul.address}", ttl=1, ttl_refresh=0.2)
    register(ours, service(1))
    ours.close()
    register(clone, service(2, id="clone:c2:80", address="127.9.0.2"))

    def dead() -> bool:
        clone.keepalive()
        checks = consul.api("agent/checks")
        assert checks["registrator:clone:c2:80"]["Status"] == "passing"
        return bool(checks["registrator:host:c1:80"]["Status"] == "critical")

    until(dead, "our services to turn critical")


def test_what_1_0_0_wrote_is_taken_over_and_then_stands(consul: Consul) -> None:
    put(consul, "agent/service/register", {
        "ID": f"registrator:{OWNER}", "Name": "registrator", "Meta": {"registrator-owner": OWNER},
        "Check": {"CheckID": f"service:registrator:{OWNER}", "TTL": "30s", "Status": "passing"},
    })  # fmt: skip
    for body in (
        release_one(1),
        release_one(2),
        release_one(3, id="clone:c3:80", address="1.1.1.1"),
    ):
        put(consul, "agent/service/register", body)
    ours = backend(f"consul://{consul.address}", ttl=30, ttl_refresh=10)
    assert {found.mark for found in ours.list().values()} == {Mark.UNTOLD}
    plan = planned(ours, 1)
    assert [entry.key for entry in plan.register] == ["host:c1:80"]
    assert plan.deregister == ("host:c2:80",)
    ours.apply(plan)
    assert not planned(ours, 1)
    ours.close()
    again = backend(f"consul://{consul.address}", ttl=30, ttl_refresh=10)
    assert not planned(again, 1)
    assert "clone:c3:80" in consul.api("agent/services")
    again.close()


def test_the_entries_under_the_engines_former_id_are_taken_over(consul: Consul) -> None:
    context = {"ttl": 30, "ttl_refresh": 10}
    before = backend(f"consul://{consul.address}", "former", **context)
    register(before, service(1), service(2))
    before.close()
    now = Identity(OWNER, "host", ("former",))
    ours = backend(f"consul://{consul.address}", now, **context)
    plan = planned(ours, 1)
    assert [entry.key for entry in plan.register] == ["host:c1:80"]
    assert set(plan.deregister) == {"host:c2:80", "registrator:former:host"}
    assert ours.apply(plan) == {}
    assert not planned(ours, 1)
    assert ours.list().keys() == {"host:c1:80"}
    ours.close()


@pytest.mark.parametrize("fields", [{}, {"Port": 1}, {"Name": "other"}, {"Tags": ["x"]}])
def test_an_unmarked_entry_with_a_custom_id_is_adopted_if_the_original_wrote_it(
    consul: Consul, ours: Backend, fields: dict[str, Any]
) -> None:
    mine = service(1, id="postgres", name="db", tags=("a", "b"))
    written = {
        "ID": mine.id, "Name": mine.name, "Address": mine.address, "Port": mine.port,
        "Tags": ["b", "a"],
    }  # fmt: skip
    put(consul, "agent/service/register", written | fields)
    plan = diff({mine.id: ours.entry(mine)}, ours.list(), HERE, dangling=lambda _: True)
    assert bool(plan.conflicts) == bool(fields)
    assert bool(plan.register) == (not fields)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Consul, Consul]]:
    with pair(tmp_path) as agents:
        yield agents


def test_only_copies_of_this_host_go_from_a_former_agent(two: tuple[Consul, Consul]) -> None:
    first, second = two
    proxy = TCPProxy(first.address)
    clones = backend(f"consul://{first.address}", CLONE)
    register(clones, service(3, id="clone:c3:80"))
    former = backend(f"consul://{first.address}", "former")
    register(former, service(4))
    for body in (release_one(1), release_one(2, id="clone:c2:80")):
        put(first, "agent/service/register", body)
    now = Identity(OWNER, "host", ("former",))
    ours = backend(f"consul://{second.address},{proxy.address}", now)
    register(ours, service(1), service(4))

    def gone() -> bool:
        ours.keepalive()
        return set(first.api("agent/services")) == {"clone:c2:80", "clone:c3:80"}

    until(gone, lambda: f"our copies to go: {[*first.api('agent/services')]}")
    until(lambda: settled(ours), "nothing owed")
    assert first.api("agent/services").keys() == {"clone:c2:80", "clone:c3:80"}
    for each in (ours, clones, former):
        each.close()
    proxy.close()


def settled(ours: Backend) -> bool:
    ours.keepalive()
    owed: object = ours._leftovers  # type: ignore[attr-defined]
    return not owed
