"""A look with a read-only context, beside an agent that runs: it finds all, and changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import urllib3
from support import etcd
from support.fakes import FakeBackend, FakeRegistry
from support.servers import Etcd

from contract.consul import ConsulKV
from contract.kinds import PLAIN, over
from contract.registry import ADDRESSES, HERE, HOST, OTHER, OWNER, PATIENT, Registry, service
from contract.test_withdraw import agent, place, register
from registrator.backend import Context, SessionLost
from registrator.commands import reading
from registrator.commands.diff import differing
from registrator.commands.reading import Comparison, Reader, compare
from registrator.model import ContainerHealth, Identity, Mark, Service, Snapshot
from registrator.uri import parse

KINDS = ("file", *PLAIN)


def renewals(registry: Registry) -> int:
    """How often the server was asked to prolong a lease. Only etcd counts it."""
    server = registry.server
    return etcd.requests(server, "LeaseKeepAlive") if isinstance(server, Etcd) else 0


def forget_names(registry: Registry) -> None:
    """Remove the manifests in Consul's store. An agent writes its own again at its next look."""
    if isinstance(registry, ConsulKV):
        url = f"http://{registry.server.address}/v1/kv/.registrator/{registry.token}?recurse"
        assert urllib3.request("DELETE", url, timeout=60).status == 200


def keepers() -> int:
    """How many threads of this process prolong a lease or a session."""
    return sum(thread.name == "keeper" for thread in threading.enumerate())


@over(KINDS)
@pytest.mark.parametrize("leased", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
def test_it_finds_all_and_changes_nothing(registry: Registry, leased: bool, stopped: bool) -> None:
    life: Mapping[str, Any] = registry.leased if leased else {}
    woken: list[str] = []
    note: Callable[[], None] = lambda: woken.append("woken")  # noqa: E731
    registry.plant()
    with agent(registry, OTHER) as other, agent(registry, wake_soon=note, **life) as running:
        taken = register(other, service(5, address="10.0.0.2"))
        ours = register(running, service(0), service(1, id="my-own"))
        if stopped:
            running.close()
        forget_names(registry)
        alive = keepers()
        before = (registry.index(), renewals(registry), registry.read(), registry.outside())
        for _ in range(2):
            with agent(registry, read_only=True, **life) as looking:
                looking.list()
                found = looking.list([*ours, *taken])
                assert {k for k, a in found.items() if HERE.mark(a) is Mark.OURS} >= ours.keys()
                made = [looking.entry(each) for each in (service(0), service(1, id="my-own"))]
                assert {entry.key: found[entry.key].content for entry in made} == {
                    entry.key: entry.content for entry in made
                }
                assert all(found[key].mark is Mark.OTHERS for key in taken)
                assert keepers() <= alive
        assert (registry.index(), renewals(registry), registry.read(), registry.outside()) == before
        assert not woken, "the running agent has lost its connection"


def compared(
    registry: Registry, *services: Service, complete: bool = True, **life: Any
) -> Comparison:
    """The findings of ``diff`` if these services run."""
    snapshot = Snapshot({each.id: each for each in services}, ADDRESSES, complete)
    context = Context(place(registry), Identity(OWNER, HOST), timeout=PATIENT, **life)
    reader = Reader(context)
    try:
        return compare(reader, snapshot, context.identity, cleanup=True)
    finally:
        reader.close()


@over(KINDS)
@pytest.mark.parametrize("leased", [False, True])
def test_beside_an_agent_that_runs_there_is_no_difference(registry: Registry, leased: bool) -> None:
    """Its lease or session holds the entries, and no other process does."""
    life: Mapping[str, Any] = registry.leased if leased else {}
    with agent(registry, **life) as running:
        register(running, service(0), service(1, id="my-own"))
        found = compared(registry, service(0), service(1, id="my-own"), **life)
        assert not found.plan
        assert (found.missing, found.problems) == (set(), {})
        assert found.ours == 2


@over(KINDS)
def test_each_kind_of_difference(registry: Registry) -> None:
    with agent(registry) as running, agent(registry, OTHER) as other:
        # Another tag is no difference where a value is plain. ZooKeeper's key has the address.
        changed = service(0, attrs={"x": "s3cret"}, tags=("a",), address="10.0.0.2")
        keys = register(running, changed, service(1))
        register(other, service(3, address="10.0.0.1"))
        now = service(0, attrs={"x": "s3cret, too"}, address="10.0.0.2")
        wanted = (now, service(2), service(3))
        found = compared(registry, *wanted)
        ids = {entry.service.id for entry in found.plan.register}
        assert ids - {service(0).id} == {service(2).id}
        texts = [
            differing(entry, found.actual[entry.key])
            for entry in found.plan.register
            if entry.key in found.actual
        ]
        assert all(texts)
        assert "s3cret" not in "".join(texts)
        gone = {entry for entry in keys if "1001" in keys[entry]}
        assert set(found.plan.deregister) == gone
        assert [*found.problems] == [service(3).id]
        assert not compared(registry, *wanted, complete=False).plan.deregister


@over(("file", "consul"))
def test_an_unhealthy_service_is_to_go_where_nobody_sees_its_health(registry: Registry) -> None:
    ill = service(0, health=ContainerHealth.UNHEALTHY)
    with agent(registry) as running:
        register(running, service(0))
    found = compared(registry, ill, complete=False)
    shows = registry.uri().startswith("consul")
    assert bool(found.plan.deregister) is not shows
    assert (ill.id in found.problems) is not shows


def test_a_move_to_another_server_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = FakeRegistry(faults=[SessionLost("it moved")])
    made = FakeBackend(shared, Identity(OWNER, HOST))
    monkeypatch.setattr(reading, "make_backend", lambda _: made)
    assert Reader(Context(parse("fake://"))).list(["a"]) == {}
    assert [*shared.asked] == [["a"], ["a"]]
