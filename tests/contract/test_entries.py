"""Readers and listings see each registered entry. An entry that stands is not written again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
from support.wait import until

from contract.kinds import PLAIN, SERVERS, everywhere, over
from contract.registry import (
    ADDRESSES,
    HOST,
    OTHER,
    OWNER,
    Registry,
    ours,
    reconcile,
    service,
    shown,
)
from registrator.model import Identity, Mark, Plan, Snapshot
from registrator.status.report import RegistryReport
from registrator.sync.reconciler import Reconciler

VARIED = (
    service(0),
    service(1, tags=("b", "a"), attrs={"region": "eu", "z": ""}),
    service(2, "db", address="fd00::1"),
    service(3, "dns", protocol="udp", id="host:c3:53:udp", tags=("udp",)),
    service(4, "größe", id="my own id", tags=("ü", "x=y,z"), attrs={"notes": 'a "b" \\ 日本'}),
)


@everywhere
def test_what_is_registered_is_seen_and_listed(registry: Registry) -> None:
    backend = registry.make()
    assert ours(backend) == {}
    entries = [backend.entry(each) for each in VARIED]
    assert reconcile(backend, *VARIED).rejected == {}
    assert registry.read() == {entry.key: shown(entry.service) for entry in entries}
    found = ours(backend)
    assert {k: a.content for k, a in found.items()} == {e.key: e.content for e in entries}
    assert {a.held for a in found.values()} == {True}
    assert {k: a.address for k, a in found.items()} == {e.key: e.service.address for e in entries}
    reconcile(backend)
    assert registry.read() == {}
    assert ours(backend) == {}


@everywhere
def test_the_log_tells_whose_entry_was_removed(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """A listing does not always tell the id of a service."""
    caplog.set_level(logging.INFO)
    made = Reconciler(RegistryReport("it"), lambda *_: registry.make(), Identity(OWNER, HOST))
    for number, each in enumerate(VARIED):
        made.publish(Snapshot({each.id: each for each in VARIED[number:]}, ADDRESSES))
        made.step()
        made.wake()
        made.step()
    made.publish(Snapshot({}, ADDRESSES))
    made.step()
    removed = [each for each in caplog.records if getattr(each, "event", "") == "removed"]
    told = [(each.service_id, each.container_id) for each in removed]  # type: ignore[attr-defined]
    assert told == [(each.id, each.container_id) for each in VARIED]


@everywhere
def test_applying_twice_is_applying_once(registry: Registry) -> None:
    backend = registry.make(**registry.leased)
    plan = Plan(tuple(map(backend.entry, VARIED)))
    backend.list()
    assert backend.apply(plan) == {}
    once, seen = ours(backend), registry.read()
    assert backend.apply(plan) == {}
    assert (ours(backend), registry.read()) == (once, seen)
    removal = Plan((), tuple(once))
    for _ in range(2):
        assert backend.apply(removal) == {}
        assert registry.read() == {}


@everywhere
def test_a_round_without_a_change_writes_nothing(registry: Registry) -> None:
    backend = registry.make(**registry.leased)
    reconcile(backend, *VARIED)
    backend.keepalive()
    before = registry.index()
    for _ in range(3):
        assert not reconcile(backend, *VARIED).plan
    assert registry.index() == before


@everywhere
def test_what_changes_is_changed_alone(registry: Registry) -> None:
    backend = registry.make()
    reconcile(backend, *VARIED)
    moved = service(0, port=4000)
    plan, rejected = reconcile(backend, moved, *VARIED[1:])
    assert [entry.service for entry in plan.register] == [moved]
    assert rejected == {}
    wanted = {backend.entry(each).key: shown(each) for each in (moved, *VARIED[1:])}
    assert registry.read() == wanted
    assert not reconcile(backend, moved, *VARIED[1:]).plan


@everywhere
def test_what_somebody_removes_is_put_back(registry: Registry) -> None:
    """Another process of ours stands for whoever did it."""
    backend = registry.make()
    reconcile(backend, *VARIED)
    backend.close()
    reconcile(registry.make(), *VARIED[:2])
    again = registry.make()
    assert len(reconcile(again, *VARIED).plan.register) >= 3
    assert len(registry.read()) == len(VARIED)


class Watch:
    """Looks without pause. `empty` counts the looks at which nothing stood."""

    def __init__(self, read: Callable[[], object]) -> None:
        self.looks = self.empty = 0
        self._read = read
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        try:
            while not self._stop.is_set():
                self.empty += not self._read()
                self.looks += 1
        except BaseException as error:
            self._failed.append(error)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def look_again(self) -> None:
        """Wait for a look that began after this."""
        enough = self.looks + 2
        until(lambda: self.looks >= enough or self._failed, "another look")

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert self._failed == []


@over(("fake", "file", *PLAIN))
def test_a_renamed_service_is_never_missing(registry: Registry) -> None:
    backend = registry.make()
    reconcile(backend, service(0, "old"))
    with Watch(registry.read) as watch:
        for name in ("new", "old", "new"):
            watch.look_again()
            reconcile(backend, service(0, name))
            assert list(registry.read()) == [backend.entry(service(0, name)).key]
        watch.look_again()
    assert watch.empty == 0


@everywhere
def test_a_successor_takes_over_without_a_gap(registry: Registry) -> None:
    """A restart of the agent: its entries stand meanwhile, and are held by the next process."""
    services = [service(n) for n in range(50)]
    first = registry.make(**registry.leased)
    reconcile(first, *services)
    whole = registry.read()
    with Watch(lambda: registry.read() == whole) as watch:
        first.close()
        watch.look_again()
        before = registry.index()
        second = registry.make(**registry.leased)
        plan, rejected = reconcile(second, *services)
        assert rejected == {}
        if not registry.rewrites:
            assert not plan
            assert registry.index() == before
        assert [a.held for a in ours(second).values()] == [True] * 50
        assert not reconcile(second, *services).plan
        second.keepalive()
        watch.look_again()
    assert (watch.empty, len(whole)) == (0, 50)


@everywhere
def test_two_owners_side_by_side(registry: Registry) -> None:
    """Neither is touched by what the other does, be it to a name or an id that both have."""
    mine, theirs = registry.make(), registry.make(OTHER)
    own = [service(n) for n in (0, 1, 2)]
    other = [service(n, address="10.0.0.2") for n in (5, 6)]
    reconcile(mine, *own)
    reconcile(theirs, *other)
    keys = {each.id: mine.entry(each).key for each in (*own, *other)}
    wanted = {keys[each.id]: shown(each) for each in (*own, *other)}
    assert registry.read() == wanted
    assert ours(mine).keys() == {keys[each.id] for each in own}
    assert ours(theirs).keys() == {keys[each.id] for each in other}
    assert not reconcile(mine, *own).plan

    plan, _ = reconcile(theirs, *other, own[0])
    assert [*plan.conflicts] == [keys[own[0].id]]
    assert registry.read() == wanted
    reconcile(theirs)
    assert registry.read() == {keys[each.id]: shown(each) for each in own}
    reconcile(mine, *own[:2])
    assert len(registry.read()) == 2


@over(("fake", "file", *(kind for kind in SERVERS if not kind.startswith("consul-"))))
def test_one_that_is_refused_does_not_hold_up_the_others(registry: Registry) -> None:
    """Refused is one that another owner was faster with, or, in Consul's agent, a wrong check."""
    mine, theirs = registry.make(), registry.make(OTHER)
    assert ours(mine) == {}
    wrong = {} if registry.guarded else {"check_http": "/", "check_interval": "9999999h"}
    entries = [mine.entry(service(n, attrs=wrong if n == 3 else {})) for n in range(10)]
    if registry.guarded:
        reconcile(theirs, service(3))
    rejected = mine.apply(Plan(tuple(entries)))
    assert [*rejected] == [entries[3].key]
    assert all(rejected.values())
    assert ours(mine).keys() == {entry.key for entry in entries} - {*rejected}
    assert {a.mark for k, a in mine.list().items() if k in rejected} <= {Mark.OTHERS}
