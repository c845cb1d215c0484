"""The lease stays alive whatever else the agent waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.etcd import Backends, ctl, keys, lease_of, running
from support.grpc_proxy import GRPCProxy
from support.servers import Etcd
from support.wait import until

from registrator.backend import Backend, SessionLost
from registrator.backends.common.keeper import Keeper
from registrator.model import Plan, Service

TTL = 6
# Beats that together last for longer than the lease.
BEATS = 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Etcd]:
    with running(tmp_path) as etcd:
        yield etcd


@pytest.fixture
def proxy(server: Etcd) -> Iterator[GRPCProxy]:
    with closing(GRPCProxy(server.address)) as proxy:
        yield proxy


@pytest.fixture
def make() -> Iterator[Backends]:
    with closing(Backends()) as backends:
        yield backends


def write(backend: Backend, name: str) -> None:
    entry = backend.entry(Service(f"host:{name}:80", name, "10.0.0.1", 8080, 80))
    assert backend.apply(Plan((entry,))) == {}


@pytest.mark.parametrize("method", ["LeaseTimeToLive", "Txn"])
def test_the_lease_outlives_a_call_that_takes_longer(
    server: Etcd, proxy: GRPCProxy, make: Backends, method: str
) -> None:
    backend = make(f"etcd://{proxy.address}/s", ttl=TTL, timeout=60)
    write(backend, "before")
    lease = lease_of(server, "/s/before/host:before:80")
    started = proxy.started["LeaseKeepAlive"]
    kept: list[int] = []

    def hold() -> None:
        until(lambda: proxy.started["LeaseKeepAlive"] >= started + BEATS, "keep-alives")
        kept.append(proxy.started["LeaseKeepAlive"])

    proxy.before[method] = hold
    listing = method == "LeaseTimeToLive"
    call: Callable[[], object] = backend.list if listing else lambda: write(backend, "a")
    call()
    assert kept
    assert lease_of(server, "/s/before/host:before:80") == lease


def test_a_call_in_time_leaves_nothing_to_do(proxy: GRPCProxy, make: Backends) -> None:
    """One connection, and one request for each refresh."""
    backend = make(f"etcd://{proxy.address}/s", ttl=3000)
    write(backend, "web")
    before = proxy.started.copy()
    for _ in range(3):
        backend.keepalive()
    assert proxy.started - before == {"LeaseKeepAlive": 3}


def test_every_renewal_counts_for_the_keeper(
    server: Etcd, make: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[None] = []
    monkeypatch.setattr(Keeper, "kept", lambda _: kept.append(None))
    backend = make(f"etcd://{server.address}/s", ttl=TTL)
    write(backend, "web")
    backend.keepalive()
    assert len(kept) == 2
    again = make(f"etcd://{server.address}/s", ttl=TTL)
    again.list()
    assert len(kept) == 3


def test_a_lease_that_ends_meanwhile_has_the_entries_listed(server: Etcd, make: Backends) -> None:
    woken = threading.Event()
    backend = make(f"etcd://{server.address}/s", ttl=TTL, wake=woken.set)
    write(backend, "web")
    ctl(server, "lease", "revoke", lease_of(server, "/s/web/host:web:80"))
    assert woken.wait(60)
    with pytest.raises(SessionLost):
        write(backend, "web")
    write(backend, "web")
    assert len(keys(server, "/s")) == 1


def test_no_keep_alive_after_the_end(proxy: GRPCProxy, make: Backends) -> None:
    backend = make(f"etcd://{proxy.address}/s", ttl=TTL)
    write(backend, "web")
    backend.close()
    until(lambda: "keeper" not in {each.name for each in threading.enumerate()}, "its end")
