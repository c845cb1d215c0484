"""Copies at a former Consul agent: a plan decides about each whose id does not stand elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.consul import OWNER, backend, pair, register, service
from support.proxy import TCPProxy
from support.servers import Consul
from support.wait import until

from registrator.backend import Backend, SessionLost
from registrator.backends.consul import leftovers
from registrator.backends.consul.leftovers import Leftovers
from registrator.backends.consul.removals import Removals
from registrator.backends.consul.settings import Endpoint
from registrator.model import Actual, Identity, Plan
from registrator.uri import parse

COPY = Actual("", held=False, id="host:c2:80")


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


class Moved:
    """A backend that left the first agent for the second, where only service 1 still runs."""

    def __init__(self, first: TCPProxy, second: Consul, **context: Any) -> None:
        self.proxy = first
        self.woken: list[bool] = []
        self.backend = backend(
            f"consul://{first.address},{second.address}", timeout=2,
            wake=lambda: self.woken.append(True), **context,
        )  # fmt: skip
        self.backend.list()
        register(self.backend, service(1), service(2))
        first.freeze()
        with pytest.raises(SessionLost):
            self.backend.list()
        assert "host:c2:80" not in self.backend.list(), "its original may still be written"
        register(self.backend, service(1))

    def look(self) -> None:
        """Look at the first agent, if it answers in time."""
        seen = self.proxy.received

        def looked() -> bool:
            self.backend.keepalive()
            return self.proxy.received > seen

        until(looked, "a look at the first agent")
        wait(self.backend._leftovers._looks.values())  # type: ignore[attr-defined]


@pytest.mark.parametrize("ttl", [0, 30])
def test_a_plan_decides_about_what_ended_during_a_move(
    two: tuple[Consul, Consul], proxy: TCPProxy, ttl: float
) -> None:
    first, second = two
    moved = Moved(proxy, second, ttl=ttl, ttl_refresh=ttl / 3)
    ours = moved.backend
    ours.keepalive()
    assert moved.woken, "to list what a plan has to decide about"
    assert ours.list()["host:c2:80"] == COPY
    proxy.thaw()
    owners = {f"registrator:{OWNER}:host"} if ttl else set()

    def only_the_undecided() -> bool:
        moved.look()
        assert ids(first) >= {"host:c2:80"} | owners, "nobody has decided yet"
        return "host:c1:80" not in ids(first)

    until(only_the_undecided, "the copy to go whose original stands")
    assert only_the_undecided()
    assert len(moved.woken) == 1, "it is known"
    assert ours.apply(Plan(deregister=("host:c2:80",))) == {}
    assert ours.keepalive_interval == 0, "it goes without waiting"
    assert "host:c2:80" not in ours.list(), "it is decided"
    until(lambda: gone(ours, first), lambda: f"the copies to go: {ids(first)}")
    assert ids(second) == {"host:c1:80"} | owners
    ours.close()


def gone(ours: Backend, consul: Consul) -> bool:
    ours.keepalive()
    return not ids(consul)


def test_what_ended_while_the_former_agent_was_away_goes_at_once(
    two: tuple[Consul, Consul], proxy: TCPProxy
) -> None:
    moved = Moved(proxy, two[1])
    moved.backend.keepalive()
    moved.backend.list()
    moved.backend.apply(Plan(deregister=("host:c2:80",)))
    asked = len(moved.woken)
    proxy.thaw()
    until(lambda: gone(moved.backend, two[0]), lambda: f"the copies to go: {ids(two[0])}")
    assert len(moved.woken) == asked, "no plan has to decide again"
    moved.backend.close()


def test_a_new_process_asks_about_what_a_former_one_left(
    two: tuple[Consul, Consul], proxy: TCPProxy
) -> None:
    first, second = two
    former = backend(f"consul://{first.address}")
    register(former, service(1), service(2))
    former.close()
    woken: list[bool] = []
    ours = backend(f"consul://{second.address},{proxy.address}", wake=lambda: woken.append(True))
    assert ours.list() == {}
    register(ours, service(1))

    def asked() -> bool:
        ours.keepalive()
        return bool(woken)

    until(asked, "the wake-up")
    until(lambda: ours.list().get("host:c2:80") == COPY, "a listing that shows the copy")
    assert "host:c2:80" in ids(first)
    register(ours, service(2))
    until(lambda: gone(ours, first), lambda: f"the copies to go: {ids(first)}")
    assert ids(second) == {"host:c1:80", "host:c2:80"}
    ours.close()


def test_looks_at_what_nobody_decides_about_grow_rare(
    two: tuple[Consul, Consul], proxy: TCPProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(leftovers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    former = backend(f"consul://{two[0].address}")
    register(former, service(2))
    former.close()
    ours = backend(f"consul://{two[1].address},{proxy.address}")
    ours.list()

    def looks(seconds: int) -> int:
        seen = 0
        for _ in range(seconds):
            now[0] += 1
            before = proxy.received
            ours.keepalive()
            wait(ours._leftovers._looks.values())  # type: ignore[attr-defined]
            seen += proxy.received > before
        return seen

    assert 1 < looks(60) < 10
    assert "host:c2:80" in ids(two[0])
    ours.list()
    ours.apply(Plan(deregister=("host:c2:80",)))
    assert looks(1) == 1, "a decision makes a look due"
    until(lambda: looks(1) >= 0 and not ids(two[0]), "the copy to go")
    ours.close()


def test_a_copy_that_is_wanted_again_is_undecided_after_the_next_move() -> None:
    uri, identity = parse("consul://127.0.0.1,127.0.0.2,127.0.0.3"), Identity(OWNER, "host")
    log = logging.getLogger("test")
    made = Leftovers(
        uri, identity, lambda *_: pytest.fail("no look"), 1, log, lambda: None, Removals(identity)
    )
    a, b, c = (Endpoint("", f"127.0.0.{n}", 8500) for n in (1, 2, 3))
    made.moved(None, (), a, (a, b, c))
    made.moved(a, ("x", "y"), b, (a, b, c))
    assert made.undecided({"y"}) == {"x"}
    made.decided(set(), {"x", "other"})
    assert made.undecided(set()) == {"y"}
    made.decided({"x"}, set())
    made.moved(b, ("x", "y"), c, (a, b, c))
    assert made.undecided(set()) == {"x", "y"}
