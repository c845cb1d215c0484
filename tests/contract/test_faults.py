"""Frozen servers, dead addresses, lost sessions: told in time, and mended by list, diff, apply."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from support.wait import until

from contract.kinds import CONSULKV, ETCD, SERVERS, ZOOKEEPER, over
from contract.registry import Registry, ours, reconcile, service
from registrator.backend import Backend, SessionLost, Unavailable
from registrator.model import Plan, Service

TIMEOUT = 0.4
NETWORKED = tuple(kind for kind in SERVERS if not kind.endswith("-unix"))


@pytest.fixture
def mute() -> Iterator[str]:
    """An address that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def fails(call: Callable[[], object]) -> None:
    """Hold a call to an end, while its server is frozen, and to its errors."""
    with pytest.raises((Unavailable, SessionLost)) as caught:
        call()
    assert str(caught.value)


def settle(backend: Backend, *services: Service) -> None:
    """Have everything right, however busy the machine is: the deadlines here are short."""

    def right() -> bool:
        settled = not reconcile(backend, *services).plan
        backend.keepalive()
        return settled

    until(right, "everything right", ignore=(Unavailable, SessionLost))


@over(SERVERS)
def test_every_call_ends_at_a_frozen_server(registry: Registry) -> None:
    assert registry.server is not None
    backend = registry.make(timeout=TIMEOUT, **registry.leased)
    services = [service(n) for n in range(100)]
    settle(backend, *services)
    fresh = registry.make(timeout=TIMEOUT, **registry.leased)
    more = Plan(tuple(backend.entry(service(n)) for n in range(100, 200)))
    keys = until(lambda: tuple(ours(backend)), "the keys", ignore=(Unavailable, SessionLost))
    fewer = Plan((), keys)
    registry.server.freeze()
    for call in (
        backend.list, lambda: backend.apply(more), lambda: backend.apply(fewer), fresh.list,
    ):  # fmt: skip
        fails(call)
    backend.close()
    registry.server.thaw()

    def right() -> bool:
        # What timed out may be carried out late, so that one round is not always enough.
        return not reconcile(fresh, *services).plan and len(registry.read()) == 100

    until(right, "everything right after the thaw", ignore=(Unavailable, SessionLost))


@over(SERVERS)
def test_a_keepalive_ends_at_a_frozen_server(registry: Registry) -> None:
    assert registry.server is not None
    backend = registry.make(timeout=TIMEOUT, **registry.leased)
    settle(backend, service())
    registry.server.freeze()
    fails(backend.keepalive)
    registry.server.thaw()
    settle(backend, service())


@over(NETWORKED)
def test_mute_addresses_are_passed_over(registry: Registry, mute: str) -> None:
    """The agent reaches a good server behind one that is mute and one that refuses."""
    backend = registry.make("engine-1", mute, "127.0.0.1:9", timeout=TIMEOUT)
    settle(backend, service())
    assert len(registry.read()) == 1


@over((*CONSULKV, *ETCD, *ZOOKEEPER, "consul", "consul-tls", "consul-unix"))
def test_a_lost_session_is_told_and_mended(registry: Registry) -> None:
    backend = registry.make(**registry.leased)
    services = [service(n) for n in range(5)]
    reconcile(backend, *services)
    backend.keepalive()
    registry.end_session(backend)
    until(lambda: registry.read() == {}, "the end of what hung on it")

    def told() -> bool:
        try:
            backend.keepalive()
        except SessionLost:
            return True
        return False

    # kazoo learns of it on its own thread.
    until(told, "the loss to be told", ignore=(Unavailable,))
    assert ours(backend) == {}
    assert len(reconcile(backend, *services).plan.register) == 5
    backend.keepalive()
    assert [a.held for a in ours(backend).values()] == [True] * 5
    assert not reconcile(backend, *services).plan


@over((*CONSULKV, *ETCD, *ZOOKEEPER))
def test_a_session_lost_between_list_and_apply(registry: Registry) -> None:
    backend = registry.make(**registry.leased)
    reconcile(backend, service(0))
    plan = Plan((backend.entry(service(1)),))
    registry.end_session(backend)
    until(lambda: registry.read() == {}, "the end of what hung on it")

    def told() -> bool:
        try:
            backend.apply(plan)
        except SessionLost:
            return True
        return False

    until(told, "the loss to be told", ignore=(Unavailable,))
    reconcile(backend, service(0), service(1))
    assert len(registry.read()) == 2


@over(SERVERS)
def test_closing_leaves_the_entries_standing(registry: Registry) -> None:
    backend = registry.make(**registry.leased)
    reconcile(backend, service(0), service(1))
    before = registry.read()
    backend.close()
    backend.close()
    assert registry.read() == before
    assert len(before) == 2
