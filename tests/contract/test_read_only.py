"""A look with a read-only context, beside an agent that runs: it finds all, and changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import urllib3
from support import etcd
from support.servers import Etcd

from contract.consul import ConsulKV
from contract.kinds import PLAIN, over
from contract.registry import HERE, OTHER, Registry, service
from contract.test_withdraw import agent, register
from registrator.model import Mark

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
