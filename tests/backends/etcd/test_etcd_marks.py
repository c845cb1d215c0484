"""Whose an entry is: clones of this host, version 1.0.0, former engines, strangers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import replace
from uuid import uuid4

import pytest
from support.etcd import Backends, ctl, grant, keys, lease_of, lease_of_1_0_0, revision, running
from support.servers import Etcd

from registrator.backend import Backend
from registrator.backends.etcd.lease import SLOTS
from registrator.backends.etcd.listing import PER_LISTING
from registrator.model import Actual, Mark, Plan, Service
from registrator.sync.plan import Here, diff

# Two clones: the engine's id is the same, and the addresses are their own.
A, B = "web01", "web02"
ADDRESSES = {A: "10.0.0.1", B: "10.0.0.2"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture
def make() -> Iterator[Backends]:
    with closing(Backends()) as backends:
        yield backends


@pytest.fixture(params=["etcd", "etcd-json", "skydns2"])
def uri(server: Etcd, request: pytest.FixtureRequest) -> str:
    """A place of its own in each layout."""
    token = f"t{uuid4().hex}"
    return {
        "etcd": f"etcd://{server.address}/{token}",
        "etcd-json": f"etcd://{server.address}/{token}?value=json",
        "skydns2": f"skydns2://{server.address}/{token}.local",
    }[request.param]


@pytest.fixture
def plain(server: Etcd) -> str:
    return f"etcd://{server.address}/t{uuid4().hex}"


def service(host: str, name: str = "web", **changes: object) -> Service:
    made = Service(f"{host}:{name}:80", name, ADDRESSES[host], 8080, 80)
    return replace(made, **changes)  # type: ignore[arg-type]


def plan(backend: Backend, host: str, *wanted: Service) -> Plan:
    """Do what the reconciler of this host does."""
    entries = {entry.key: entry for entry in map(backend.entry, wanted)}
    own = frozenset({ADDRESSES[host]})
    return diff(entries, backend.list(entries), Here(host, own, own), dangling=lambda _: True)


def settle(backend: Backend, host: str, *wanted: Service) -> Plan:
    todo = plan(backend, host, *wanted)
    assert backend.apply(todo) == {}
    return todo


def first_find(backend: Backend) -> Collection[Actual]:
    """The entries of the first listing that has any. Listings ask for all leases bit by bit."""
    listings = (backend.list().values() for _ in range(SLOTS // PER_LISTING + 1))
    return next(filter(None, listings))


@pytest.mark.parametrize("ttl", [0, 60])
def test_clones_leave_each_others_entries_alone(make: Backends, uri: str, ttl: float) -> None:
    one, two = make(uri, host=A, ttl=ttl), make(uri, host=B, ttl=ttl)
    for _ in range(2):
        settle(one, A, service(A), service(A, "own", id="custom-a"))
        settle(two, B, service(B), service(B, "own", id="custom-b"))
    assert len(one.list(two.list())) == 4
    assert not plan(one, A, service(A), service(A, "own", id="custom-a"))
    assert not plan(two, B, service(B), service(B, "own", id="custom-b"))
    # Also when one starts anew, and when it has no service left.
    again = make(uri, host=B, ttl=ttl)
    assert len(settle(again, B).deregister) == 2
    assert not plan(make(uri, host=A, ttl=ttl), A, service(A), service(A, "own", id="custom-a"))


def test_a_clone_is_named(make: Backends, uri: str) -> None:
    one, two = make(uri, host=A), make(uri, host=B)
    settle(one, A, service(A))
    (found,) = first_find(two)
    if uri.startswith("skydns2") or "json" in uri:
        assert (found.mark, found.host) == (Mark.TWIN, A)
    else:
        assert (found.mark, found.host, found.id) == (Mark.TWIN, A, f"{A}:web:80")


def test_a_clone_that_was_faster_is_left(make: Backends, uri: str) -> None:
    one, two = make(uri, host=A), make(uri, host=B)
    entry = one.entry(service(A, id="db"))
    assert one.list() == {}
    settle(two, B, service(B, id="db", port=9))
    why = one.apply(Plan((entry,)))[entry.key]
    assert why in (
        f"host {B}, which has the same engine id, holds it",
        "host unknown, which has the same engine id, holds it",
    )
    assert two.list()[entry.key].mark is Mark.OURS


def of_one_slot(host: str) -> str:
    """Another hostname whose lease has the same slot. One in 256 pairs is such."""

    def slots(host: str) -> bytes:
        return hashlib.sha256(f"{host}\0{60}".encode()).digest()

    return next(name for n in range(9999) if slots(name := f"h{n}")[0] == slots(host)[0])


def test_clones_whose_leases_have_one_slot_take_two(
    server: Etcd, make: Backends, plain: str
) -> None:
    other = of_one_slot(A)
    one, two = make(plain, host=A, ttl=60), make(plain, host=other, ttl=60)
    settle(one, A, service(A))
    assert settle(two, B).deregister == ()
    two.apply(Plan((two.entry(replace(service(B), id=f"{other}:web:80")),)))
    prefix = "/" + plain.rpartition("/")[2]
    leases = {lease_of(server, key) for key in keys(server, prefix)}
    assert len(leases) == 2


def test_clones_that_began_to_share_a_lease_leave_each_others_entries_alone(
    make: Backends, plain: str
) -> None:
    """The lease that the second one finds has no key, so nothing tells whose it is."""
    other = of_one_slot(A)
    one, two = make(plain, host=A, ttl=60), make(plain, host=other, ttl=60)
    settle(one, A, service(A))
    settle(one, A)
    own = replace(service(B), id=f"{other}:web:80")
    strange = replace(service(B, "db"), id="db:main:80", address="172.17.0.2")
    for _ in range(2):
        settle(two, B, own, strange)
        assert settle(one, A).deregister == ()
    # The host whose service it is knows it again after a restart, and writes nothing.
    assert not settle(make(plain, host=A, ttl=60), A)
    assert settle(make(plain, host=other, ttl=60), B, own, strange).conflicts == {}


def test_a_new_hostname_takes_the_entries_over(make: Backends, uri: str) -> None:
    before = make(uri, host=A)
    settle(before, A, service(A), service(A, "own", id="custom"))
    after = make(uri, host="renamed")
    here = Here("renamed", frozenset({ADDRESSES[A]}), frozenset({ADDRESSES[A]}))
    wanted = [service(A, id="renamed:web:80"), service(A, "own", id="custom")]
    for expected in (2, 0):
        entries = {entry.key: entry for entry in map(after.entry, wanted)}
        todo = diff(entries, after.list(entries), here, dangling=lambda _: True)
        assert (len(todo.register), len(todo.deregister)) == (expected, expected // 2)
        after.apply(todo)


def test_a_new_hostname_finds_the_entries_under_names_that_no_longer_run(
    make: Backends, uri: str
) -> None:
    """Nothing that runs now leads to the lease of the former hostname."""
    before = make(uri, host=A)
    settle(before, A, service(A), service(A, "own", id="custom"))
    after = make(uri, host="renamed")
    found = first_find(after)
    assert (Mark.TWIN, A) in {(each.mark, each.host) for each in found}
    here = Here("renamed", frozenset({ADDRESSES[A]}), frozenset({ADDRESSES[A]}))
    todo = diff({}, after.list(), here, dangling=lambda _: True)
    assert len(todo.deregister) == 2
    assert after.apply(todo) == {}
    assert before.list() == {}


def as_1_0_0_wrote(server: Etcd, uri: str, wanted: Service, ttl: int = 0) -> str:
    """Write a service as version 1.0.0 does. Returns its key."""
    backends = Backends()
    entry = backends(uri).entry(wanted)
    backends.close()
    value = entry.content
    if value.startswith("{"):
        document = json.loads(value)
        names = ("host", "port") if uri.startswith("skydns2") else document.keys() - {"host_name"}
        value = json.dumps({name: document[name] for name in document if name in names})
    number = lease_of_1_0_0(uri, ttl=ttl)
    if f"{number:x}" not in ctl(server, "lease", "list"):
        grant(server, number)
    ctl(server, "put", f"--lease={number:x}", "--", entry.key, value)
    return entry.key


@pytest.mark.parametrize("address", [ADDRESSES[A], "172.17.0.2"])
def test_entries_of_1_0_0_are_taken_over(
    server: Etcd, make: Backends, uri: str, address: str
) -> None:
    """By one rewrite without a gap. The second start writes nothing."""
    wanted = [service(A, address=address), service(A, "own", id="custom", address=address)]
    written = [as_1_0_0_wrote(server, uri, each) for each in wanted]
    todo = settle(make(uri, host=A), A, *wanted)
    assert sorted(entry.key for entry in todo.register) == sorted(written)
    assert (todo.deregister, todo.conflicts) == ((), {})
    before = revision(server)
    again = make(uri, host=A)
    assert not settle(again, A, *wanted)
    assert revision(server) == before
    assert {found.mark for found in again.list().values()} == {Mark.OURS}


def test_dangling_entries_of_1_0_0(server: Etcd, make: Backends, uri: str) -> None:
    """Those at our address go. A clone's stay, even if 1.0.0 wrote all of them under one lease."""
    mine = as_1_0_0_wrote(server, uri, service(A, id="custom-a"))
    theirs = [
        as_1_0_0_wrote(server, uri, service(B, id="custom-b")),
        as_1_0_0_wrote(server, uri, service(B)),
    ]
    assert settle(make(uri, host=A), A).deregister == (mine,)
    assert set(make(uri, host=A).list()) == set(theirs)


def test_the_lease_of_1_0_0_is_never_ours(server: Etcd, make: Backends, plain: str) -> None:
    """Its slot follows from the TTL alone: all clones share it."""

    def slots(ttl: int) -> bytes:
        return hashlib.sha256(f"{A}\0{ttl}".encode()).digest()

    ttl = next(ttl for ttl in range(100, 9999) if slots(ttl)[0] == ttl % 256)
    grant(server, lease_of_1_0_0(plain, ttl=ttl), ttl)
    backend = make(plain, host=A, ttl=ttl)
    settle(backend, A, service(A))
    key = f"/{plain.rpartition('/')[2]}/web/{A}:web:80"
    assert int(lease_of(server, key), 16) != lease_of_1_0_0(plain, ttl=ttl)


def test_entries_of_a_former_engine_are_taken_over(server: Etcd, make: Backends, uri: str) -> None:
    before = make(uri, "engine-0", host=A)
    kept, gone = service(A), service(A, "gone", id="custom")
    settle(before, A, kept, gone)
    others = make(uri, host=A)
    assert len(plan(others, A, kept).conflicts) == 1
    after = make(uri, host=A, former=("engine-0",))
    todo = settle(after, A, kept)
    assert (len(todo.register), len(todo.deregister)) == (1, 1)
    assert not plan(make(uri, host=A), A, kept)


def test_a_plain_put_over_our_entry_is_put_right(server: Etcd, make: Backends, uri: str) -> None:
    """Our lease goes with it. What we held at the last look is ours nevertheless."""
    backend = make(uri, host=A)
    custom = service(A, id="custom")
    settle(backend, A, custom)
    (before,) = backend.list().items()
    ctl(server, "put", "--", before[0], "10.9.9.9:1")
    (found,) = backend.list().values()
    assert found.mark is Mark.NONE
    ctl(server, "put", "--", before[0], "10.9.9.9:1 again")
    assert backend.apply(Plan((backend.entry(custom),))) == {}
    assert dict(backend.list()) == dict([before])
    # Between the look and the write.
    ctl(server, "put", "--", before[0], "10.9.9.9:2")
    assert backend.apply(Plan((backend.entry(custom),))) == {}
    assert dict(backend.list()) == dict([before])
    ctl(server, "put", "--", before[0], "10.9.9.9:3")
    assert backend.apply(Plan((), (before[0],))) == {}
    assert backend.list() == {}


def test_an_unmarked_entry_with_an_id_of_its_own(server: Etcd, make: Backends, uri: str) -> None:
    """It is adopted only if the original would have written the same."""
    backend = make(uri, host=A)
    wanted = service(A, id="postgres")
    entry = backend.entry(wanted)
    same, other = f"{ADDRESSES[A]}:8080", f"{ADDRESSES[A]}:5432"
    if uri.startswith("skydns2"):
        same, other = (json.dumps({"host": ADDRESSES[A], "port": port}) for port in (8080, 5432))
    for value in (other, json.dumps({"address": ADDRESSES[A], "port": 8080, "check": "x"})):
        ctl(server, "put", "--", entry.key, value)
        assert [*plan(backend, A, wanted).conflicts] == [entry.key]
        assert plan(backend, A).deregister == ()
    ctl(server, "put", "--", entry.key, same)
    assert settle(backend, A, wanted).register == (entry,)
    assert backend.list()[entry.key].mark is Mark.OURS
