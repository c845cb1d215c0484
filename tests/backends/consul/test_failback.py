"""A busy Consul agent is not left at once, and home is used again when it is well."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.consul import OWNER, backend, freeze, pair, register, service
from support.proxy import TCPProxy
from support.servers import Consul
from support.wait import until

from registrator.backend import Backend, SessionLost, Unavailable
from registrator.backends.consul import backend as consul_backend
from registrator.backends.consul import failback, leftovers
from registrator.model import Plan
from registrator.sync.plan import Here, by_key, diff

HERE = Here("host", frozenset({"127.9.0.1"}), frozenset({"127.9.0.1"}))
BUSY = [
    b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbusy",
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbusy",
    b"HTTP/1.1 500 Server Error\r\nConnection: close\r\nContent-Length: 9\r\n\r\nrpc error",
]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Consul, Consul]]:
    with pair(tmp_path) as agents:
        yield agents


@pytest.fixture
def proxy(two: tuple[Consul, Consul]) -> Iterator[TCPProxy]:
    made = TCPProxy(two[0].address)
    yield made
    made.close()


def ids(consul: Consul) -> set[str]:
    return set(consul.api("agent/services"))


def reconcile(ours: Backend, *numbers: int) -> None:
    """Do what the reconciler does, until it succeeds."""
    for _ in range(5):
        with contextlib.suppress(SessionLost):
            desired, _ = by_key([ours.entry(service(number)) for number in numbers])
            plan = diff(desired, ours.list(), HERE, dangling=lambda _: True)
            assert ours.apply(plan) == {}
            return
    raise AssertionError("no agent to reconcile with")


@pytest.mark.parametrize("answer", BUSY, ids=["429", "503", "rpc error"])
def test_a_busy_agent_keeps_the_services(
    two: tuple[Consul, Consul], proxy: TCPProxy, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consul_backend, "BUSY", float("inf"))
    first, second = two
    ours = backend(f"consul://{proxy.address},{second.address}")
    reconcile(ours, 1)
    proxy.instead = answer
    for _ in range(3):
        with pytest.raises(Unavailable):
            ours.list()
        with pytest.raises(Unavailable):
            ours.apply(Plan((ours.entry(service(2)),)))
        with contextlib.suppress(SessionLost):  # The answer closed the connection.
            ours.keepalive()
    proxy.instead = b""
    reconcile(ours, 1, 2)
    assert ids(first) == {"host:c1:80", "host:c2:80"}
    assert ids(second) == set()
    ours.close()


def test_an_agent_that_stays_busy_is_left(
    two: tuple[Consul, Consul], proxy: TCPProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consul_backend, "BUSY", 0.2)
    ours = backend(f"consul://{proxy.address},{two[1].address}")
    reconcile(ours, 1)
    proxy.instead = BUSY[0]

    def left() -> bool:
        try:
            ours.list()
        except SessionLost:
            return True
        except Unavailable:
            return False
        raise AssertionError("it is busy")

    until(left, "the move")
    reconcile(ours, 1)
    assert ids(two[1]) == {"host:c1:80"}
    ours.close()


@pytest.mark.parametrize("ttl", [0, 30])
def test_home_is_used_again_when_it_is_well_and_nothing_is_ever_missing(
    two: tuple[Consul, Consul], ttl: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failback, "EVERY", 0.05)
    monkeypatch.setattr(failback, "WELL_FOR", (0.3, 0.6))
    first, second = two
    woken = []
    uri = f"consul://{first.address},{second.address}"
    ours = backend(uri, ttl=ttl, ttl_refresh=ttl / 3, timeout=2, wake=lambda: woken.append(True))
    reconcile(ours, 1, 2)
    freeze(first)
    with pytest.raises(SessionLost):
        ours.list()
    reconcile(ours, 1, 2, 3)
    wanted = {f"host:c{number}:80" for number in (1, 2, 3)}
    assert ids(second) >= wanted
    first.thaw()

    def is_home() -> bool:
        with contextlib.suppress(SessionLost, Unavailable):
            ours.keepalive()
        if not woken:
            assert ids(second) >= wanted
        return bool(woken)

    until(is_home, "the way home")
    for _ in range(3):
        # Home does not have everything yet, so that the copies of what it lacks stay.
        ours.list()
        ours.apply(Plan((ours.entry(service(1)),)))
        ours.keepalive()
        assert "host:c3:80" in ids(second)
    reconcile(ours, 1, 2, 3)
    assert ids(first) >= wanted

    def once() -> bool:
        ours.keepalive()
        assert ids(first) >= wanted
        return ids(second) == set()

    until(once, lambda: f"the copies to go: {ids(second)}")
    assert ids(first) - wanted == ({f"registrator:{OWNER}:host"} if ttl else set())
    ours.close()


def test_home_is_left_alone_while_it_comes_and_goes(
    two: tuple[Consul, Consul], proxy: TCPProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failback, "EVERY", 0.05)
    monkeypatch.setattr(failback, "WELL_FOR", (0.5, 0.5))
    ours = backend(f"consul://{proxy.address},{two[1].address}")
    proxy.instead = BUSY[1]
    reconcile(ours, 1)
    assert ids(two[1]) == {"host:c1:80"}
    for answer in (b"", BUSY[1]) * 5:
        seen, proxy.instead = proxy.received, answer

        def looked(seen: int = seen) -> bool:
            ours.keepalive()
            return proxy.received > seen

        until(looked, "a look at home")
        assert ids(two[1]) == {"host:c1:80"}
    ours.close()


@pytest.mark.parametrize("denied", ["there", "here"])
def test_looks_at_an_agent_that_denies_us_grow_rare(
    consul: Consul, monkeypatch: pytest.MonkeyPatch, denied: str
) -> None:
    now = [1000.0]
    monkeypatch.setattr(leftovers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    proxy = TCPProxy(consul.address)
    addresses = [consul.address, proxy.address]
    ours = backend(f"consul://{','.join(addresses if denied == 'there' else addresses[::-1])}")
    register(ours, service(1))
    proxy.instead = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 13\r\n\r\nACL not found"

    def looks(seconds: int) -> int:
        """How many rounds of looks there were."""
        seen = 0
        for _ in range(seconds):
            now[0] += 1
            before = proxy.received
            ours._leftovers.look(node_id, pool, set(), None)  # type: ignore[attr-defined]
            wait(ours._leftovers._looks.values())  # type: ignore[attr-defined]
            seen += proxy.received > before
        return seen

    api = ours._servers.current  # type: ignore[attr-defined]
    node_id, pool = api.node_id, ours._writers.pool  # type: ignore[attr-defined]
    assert looks(60) < 10
    assert 1 < looks(90) < 5
    proxy.instead = b""
    assert looks(60) < 10
    owed: object = ours._leftovers  # type: ignore[attr-defined]
    assert not owed
    ours.close()
    proxy.close()
