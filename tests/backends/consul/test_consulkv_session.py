"""The session keeps the keys in Consul's store alive, and lost keys come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.consul import Running, backend, put, register, service
from support.proxy import RecordingHTTPProxy, Request
from support.servers import Consul, consul_cluster
from support.wait import until

from registrator.backend import SessionLost
from registrator.backends.consul.transport import REFUSED
from registrator.model import Plan


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    consul = Consul(tmp_path_factory.mktemp("consul"))
    consul.start()
    yield consul
    consul.kill()


def keys(consul: Consul, prefix: str) -> set[str]:
    try:
        return {row["Key"] for row in consul.api(f"kv/{prefix}/?recurse")}
    except OSError:
        return set()


def test_a_client_agent_that_leaves_takes_no_key_along_for_long(tmp_path: Path) -> None:
    """Consul ends the sessions of a node that leaves, as a client agent does on SIGTERM.

    The refresh is far away, so it is the closed connection that tells.
    """
    (server,), clients = consul_cluster(tmp_path, 1, 2)
    running = Running(
        f"consulkv://{','.join(each.address for each in clients)}/services", service(1), service(2),
        ttl=2000, ttl_refresh=1000,
    )  # fmt: skip
    try:
        until(lambda: len(keys(server, "services")) == 2, "the keys")
        before = keys(server, "services")
        clients[0].stop()
        until(lambda: keys(server, "services") == before, "the keys again")
        (session,) = server.api("session/list")
        assert session["Node"] == clients[1].config["node_name"]
    finally:
        running.stop()
        for each in (server, *clients):
            each.kill()


@pytest.mark.parametrize("busy", ["listing", "write"])
def test_the_session_is_renewed_while_the_agent_is_busy(consul: Consul, busy: str) -> None:
    """The answer to a listing or to a transaction comes only after the session was renewed."""
    renewed, held = threading.Event(), threading.Event()

    def before(request: Request) -> None:
        if "/v1/session/renew/" in request.path:
            renewed.set()
        if request.path.startswith("/v1/txn"):
            held.set()
            if slow.is_set() and not renewed.wait(60):
                late.append(request)

    slow, late = threading.Event(), list[Request]()
    proxy = RecordingHTTPProxy(consul.address, before=before)
    ours = backend(f"consulkv://{proxy.address}/busy-{busy}", ttl=10, ttl_refresh=0.2, timeout=120)
    register(ours, service(1))
    renewed.clear()
    slow.set()
    if busy == "listing":
        assert len(ours.list()) == 1
    else:
        register(ours, service(2))
    assert (late, held.is_set()) == ([], True)
    ours.close()
    proxy.close()


def test_a_session_that_ended_while_the_agent_was_busy_is_told(consul: Consul) -> None:
    woken = threading.Event()
    ours = backend(f"consulkv://{consul.address}/told", ttl=10, ttl_refresh=0.2, wake=woken.set)
    (entry,) = register(ours, service(1))
    (row,) = consul.api(f"kv/{entry.key}")
    put(consul, f"session/destroy/{row['Session']}")
    assert woken.wait(60)
    assert ours.list() == {}
    with pytest.raises(SessionLost):
        ours.apply(Plan(register=(entry,)))
    ours.close()


def test_between_two_refreshes_nothing_is_asked(consul: Consul) -> None:
    proxy = RecordingHTTPProxy(consul.address)
    ours = backend(f"consulkv://{proxy.address}/quiet", ttl=2000, ttl_refresh=1000)
    register(ours, service(1))
    ours.list()
    before = len(proxy.requests)
    for _ in range(20):
        ours.keepalive()
    assert len(proxy.requests) == before
    ours.close()
    proxy.close()


def test_a_closed_backend_renews_nothing(consul: Consul) -> None:
    """An agent that ended leaves its keys to their TTL."""
    others = set(threading.enumerate())
    ours = backend(f"consulkv://{consul.address}/closed", ttl=10, ttl_refresh=0.2)
    register(ours, service(1))
    [keeper] = (each for each in set(threading.enumerate()) - others if each.name == "keeper")
    ours.close()
    until(lambda: not keeper.is_alive(), "no keeper")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (429, "slow down"),
        (503, "busy"),
        (500, "rpc error making call: EOF"),
        (500, "No cluster leader"),
    ],
)
def test_a_server_without_a_cluster_is_left_at_once(consul: Consul, status: int, text: str) -> None:
    """The store belongs to the cluster, so any other server may serve."""
    failing = threading.Event()
    proxy = RecordingHTTPProxy(
        consul.address, before=lambda _: (status, text) if failing.is_set() else None
    )
    uri = f"consulkv://{proxy.address},{consul.address}/left-{len(text)}"
    ours = backend(uri, ttl=10, ttl_refresh=1)
    register(ours, service(1))
    failing.set()
    before = len(proxy.requests)
    assert len(ours.list()) == 1
    ours.keepalive()
    register(ours, service(2))
    assert len(proxy.requests) == before + 1 + (len(REFUSED) if status == 429 else 0)
    ours.close()
    proxy.close()
