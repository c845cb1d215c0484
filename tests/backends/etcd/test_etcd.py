"""The etcd backend against real servers: layout, ownership, leases, limits, logins and TLS."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from support.etcd import (
    Backends,
    ctl,
    keys,
    lease_of,
    requests,
    revision,
    running,
)
from support.servers import Etcd
from support.wait import until

from registrator.backend import (
    Backend,
    ConfigError,
    Rejected,
    SessionLost,
    Unavailable,
)
from registrator.model import Actual, Mark, Plan, Service
from registrator.sync.plan import Here, diff

SERVICE = Service("host:web1:80", "web", "10.0.0.1", 8080, 80, container_id="c1")


def first_slot(ttl: int, host: str = "host") -> int:
    """The lower 8 bits of the lease's id, unless that lease is somebody else's."""
    return hashlib.sha256(f"{host}\0{ttl}".encode()).digest()[0]


# A TTL whose lease has the same slot as that of 60 s.
SAME_SLOT = next(ttl for ttl in range(400, 10_000) if first_slot(ttl) == first_slot(60))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Etcd]:
    """A server that a test may break."""
    with running(tmp_path) as etcd:
        yield etcd


@pytest.fixture
def make() -> Iterator[Backends]:
    with closing(Backends()) as backends:
        yield backends


@pytest.fixture
def prefix() -> str:
    return f"/test-{uuid4().hex}"


@pytest.fixture
def uri(server: Etcd, prefix: str) -> str:
    return f"etcd://{server.address}{prefix}"


def services(count: int) -> list[Service]:
    return [replace(SERVICE, id=f"host:web{n}:80", port=8000 + n) for n in range(count)]


def plan(backend: Backend, *wanted: Service, cleanup: bool = True) -> Plan:
    """The plan that the reconciler would make."""
    entries = {entry.key: entry for entry in map(backend.entry, wanted)}
    addresses = frozenset({"10.0.0.1"})
    here = Here("host", addresses, addresses)
    return diff(entries, backend.list(entries), here, dangling=lambda _: cleanup)


def test_a_key_and_a_value_as_etcdctl_reads_them(
    server: Etcd, make: Backends, uri: str, prefix: str
) -> None:
    backend = make(uri)
    six = replace(SERVICE, id="host:web6:80", address="fd00::1")
    assert backend.apply(plan(backend, SERVICE, six)) == {}
    assert keys(server, prefix) == {
        f"{prefix}/web/host:web1:80": "10.0.0.1:8080",
        f"{prefix}/web/host:web6:80": "[fd00::1]:8080",
    }
    found = backend.list()
    assert found[f"{prefix}/web/host:web1:80"] == Actual(
        "10.0.0.1:8080", Mark.OURS, True, "host:web1:80", "10.0.0.1"
    )
    assert found[f"{prefix}/web/host:web6:80"].address == "fd00::1"


def test_the_whole_service_as_json(server: Etcd, make: Backends, uri: str, prefix: str) -> None:
    backend = make(f"{uri}?value=json")
    service = replace(SERVICE, tags=("a", "ü"), attrs={"z": "1", "k": "v"})
    backend.apply(plan(backend, service))
    (value,) = keys(server, prefix).values()
    assert json.loads(value) == {
        "id": "host:web1:80",
        "name": "web",
        "address": "10.0.0.1",
        "port": 8080,
        "private_port": 80,
        "protocol": "tcp",
        "tags": ["a", "ü"],
        "attrs": {"k": "v", "z": "1"},
        "container_id": "c1",
        "container_name": "",
        "container_hostname": "",
        "owner": "engine-1",
        "host_name": "host",
    }
    assert [found.address for found in backend.list().values()] == ["10.0.0.1"]
    assert not plan(backend, service)


def test_a_prefix_may_be_missing(own_server: Etcd, make: Backends) -> None:
    ctl(own_server, "put", "outside", "x")
    for number, path in enumerate(("", "/", "/a/b/")):
        backend = make(f"etcd://{own_server.address}{path}", owner=str(number))
        backend.apply(plan(backend, replace(SERVICE, id=f"id{number}")))
    assert set(keys(own_server, "/")) == {"/web/id0", "/web/id1", "/a/b/web/id2"}
    assert "outside" not in backend.list()


def test_writing_twice_and_removing_what_is_gone(make: Backends, server: Etcd, uri: str) -> None:
    backend = make(uri)
    entry = backend.entry(SERVICE)
    for _ in range(2):
        assert backend.apply(Plan((entry,))) == {}
    assert make(uri).apply(Plan((entry,))) == {}
    for _ in range(2):
        assert backend.apply(Plan((), (entry.key,))) == {}
    before = revision(server)
    assert make(uri).apply(Plan((), (entry.key,))) == {}
    assert backend.list() == {}
    assert revision(server) == before


@pytest.mark.parametrize("ttl", [0, 60])
def test_a_restarted_agent_takes_over_without_writing(
    server: Etcd, make: Backends, uri: str, ttl: float
) -> None:
    first = make(uri, ttl=ttl)
    first.apply(plan(first, *services(5)))
    first.close()
    before = revision(server)
    second = make(uri, ttl=ttl)
    assert not plan(second, *services(5))
    assert revision(server) == before
    second.apply(plan(second, *services(3)))
    assert len(second.list()) == 3


def test_entries_without_ttl_outlive_agent_and_server(own_server: Etcd, make: Backends) -> None:
    backend = make(f"etcd://{own_server.address}/s")
    backend.apply(plan(backend, SERVICE))
    own_server.kill()
    with pytest.raises(Unavailable, match=r"refused|closed"):
        backend.list()
    own_server.start()
    assert not plan(backend, SERVICE)
    assert backend.keepalive_interval is None


def test_two_owners_side_by_side(server: Etcd, make: Backends, uri: str, prefix: str) -> None:
    mine, theirs = make(uri), make(uri, owner="engine-2")
    other = replace(SERVICE, id="other:web1:80", address="10.0.0.2")
    mine.apply(plan(mine, SERVICE))
    assert plan(theirs, other).deregister == ()
    theirs.apply(plan(theirs, other))
    listed = mine.list({theirs.entry(other).key})
    marks = {key.rpartition("/")[2]: found.mark for key, found in listed.items()}
    assert marks == {SERVICE.id: Mark.OURS, other.id: Mark.OTHERS}
    assert f"{prefix}/web/{SERVICE.id}" in plan(theirs, other, SERVICE).conflicts
    free = replace(SERVICE, id="free")
    taken = theirs.entry(replace(SERVICE, port=9))
    assert theirs.apply(Plan((taken, theirs.entry(free)))) == {taken.key: "another owner holds it"}
    assert theirs.apply(Plan((), (taken.key,))) == {}
    assert keys(server, prefix)[taken.key] == "10.0.0.1:8080"
    assert f"{prefix}/web/free" in keys(server, prefix)


def test_a_key_that_another_owner_takes_meanwhile(make: Backends, server: Etcd, uri: str) -> None:
    mine, theirs = make(uri), make(uri, owner="engine-2")
    wanted, removed = mine.entry(SERVICE), mine.entry(replace(SERVICE, id="gone"))
    mine.apply(Plan((removed,)))
    mine.list()
    ctl(server, "del", removed.key)
    theirs.apply(Plan((wanted, theirs.entry(replace(SERVICE, id="gone", port=1)))))
    both = Plan((wanted, mine.entry(replace(SERVICE, id="free"))), (removed.key,))
    assert mine.apply(both) == {wanted.key: "another owner holds it"}
    assert theirs.list()[removed.key].mark is Mark.OURS
    listed = theirs.list({mine.entry(replace(SERVICE, id="free")).key})
    assert {found.mark for found in listed.values()} == {Mark.OURS, Mark.OTHERS}


def test_json_of_another_owner_without_a_lease(server: Etcd, make: Backends, uri: str) -> None:
    backend = make(uri)
    key = backend.entry(SERVICE).key
    for value, mark in (
        ('{"owner": "engine-2"}', Mark.OTHERS),
        ('{"owner": "engine-1"}', Mark.OURS),
        ("{broken", Mark.NONE),
        ("10.0.0.1:8080", Mark.NONE),
    ):
        ctl(server, "put", "--", key, value)
        found = backend.list({key})[key]
        assert (found.mark, found.held) == (mark, False)


def test_unmarked_entries_are_adopted_where_they_are_ours(
    server: Etcd, make: Backends, uri: str, prefix: str
) -> None:
    backend = make(uri)
    foreign = replace(SERVICE, id="host:web2:80")
    ctl(server, "put", f"{prefix}/web/{SERVICE.id}", "10.0.0.1:1")
    ctl(server, "put", f"{prefix}/web/{foreign.id}", "10.9.9.9:1")
    ctl(server, "put", f"{prefix}/web/host:old:80", "10.0.0.1:1")
    ctl(server, "put", f"{prefix}/web/someone", "10.0.0.1:1")
    todo = plan(backend, SERVICE, foreign)
    assert list(todo.conflicts) == [f"{prefix}/web/{foreign.id}"]
    assert backend.apply(todo) == {}
    assert keys(server, prefix) == {
        f"{prefix}/web/{SERVICE.id}": "10.0.0.1:8080",
        f"{prefix}/web/{foreign.id}": "10.9.9.9:1",
        f"{prefix}/web/someone": "10.0.0.1:1",
    }
    assert backend.list()[f"{prefix}/web/{SERVICE.id}"].mark is Mark.OURS


def test_an_unmarked_entry_that_appears_meanwhile(server: Etcd, make: Backends, uri: str) -> None:
    backend = make(uri)
    entry = backend.entry(SERVICE)
    backend.list()
    ctl(server, "put", entry.key, "10.9.9.9:1")
    assert backend.apply(Plan((entry,))) == {entry.key: "somebody else registered it with 10.9.9.9"}
    ctl(server, "put", entry.key, "10.0.0.1:1")
    assert backend.apply(Plan((entry,))) == {}
    assert backend.list()[entry.key].content == "10.0.0.1:8080"


def test_an_entry_altered_behind_our_back(server: Etcd, make: Backends, uri: str) -> None:
    backend = make(uri)
    backend.apply(plan(backend, SERVICE))
    key = backend.entry(SERVICE).key
    ctl(server, "put", "--ignore-lease", key, "1.1.1.1:1")
    backend.apply(plan(backend, SERVICE))
    assert keys(server, key) == {key: "10.0.0.1:8080"}


def test_a_wiped_server_is_filled_again(own_server: Etcd, make: Backends) -> None:
    backend = make(f"etcd://{own_server.address}/s")
    backend.apply(plan(backend, SERVICE))
    own_server.kill()
    own_server.wipe()
    own_server.start()
    assert backend.list() == {}
    with pytest.raises(SessionLost):
        backend.apply(plan(backend, SERVICE))
    backend.apply(plan(backend, SERVICE))
    assert not plan(backend, SERVICE)


def test_a_lease_that_ended_is_reported_and_replaced(
    server: Etcd, make: Backends, uri: str, prefix: str
) -> None:
    backend = make(uri, ttl=60)
    backend.keepalive()
    backend.apply(plan(backend, *services(3)))
    ctl(server, "lease", "revoke", lease_of(server, f"{prefix}/web/host:web1:80"))
    assert not keys(server, prefix)
    with pytest.raises(SessionLost, match="ended"):
        backend.keepalive()
    backend.apply(plan(backend, *services(3)))
    assert len(keys(server, prefix)) == 3


def test_one_request_keeps_all_entries_alive(own_server: Etcd, make: Backends) -> None:
    """For longer than a lease of the same length that nobody keeps alive."""
    ttl = 6
    backend = make(f"etcd://{own_server.address}/s", ttl=ttl)
    backend.apply(plan(backend, *services(300)))
    assert backend.keepalive_interval == pytest.approx(ttl / 3)
    twin = ctl(own_server, "lease", "grant", str(ttl)).split()[1]
    before = requests(own_server, "LeaseKeepAlive")
    calls = 0

    def twin_ended() -> bool:
        nonlocal calls
        backend.keepalive()
        calls += 1
        assert len(backend.list()) == 300
        return twin not in ctl(own_server, "lease", "list")

    until(twin_ended, "the end of the other lease")
    assert requests(own_server, "LeaseKeepAlive") - before == calls


@pytest.mark.parametrize(
    ("before", "after"), [(0, 4), (4, 0), (4, 60), (60, 4), (60, SAME_SLOT), (SAME_SLOT, 60)]
)
def test_another_ttl_after_a_restart(
    server: Etcd, make: Backends, uri: str, prefix: str, before: float, after: float
) -> None:
    """A TTL of 4 runs out within the test."""
    first, second = make(uri, ttl=before), make(uri, ttl=after)
    first.apply(plan(first, SERVICE))
    lease = lease_of(server, f"{prefix}/web/{SERVICE.id}")
    todo = plan(second, SERVICE)
    assert len(todo.register) == 1
    second.apply(todo)
    assert not plan(second, SERVICE)
    first.close()
    if after == 4:
        second.close()
        until(lambda: not keys(server, prefix), "the lease's end")
    else:
        until(lambda: before != 4 or lease not in ctl(server, "lease", "list"), "its end")
        assert not plan(second, SERVICE)


def test_siblings_of_one_owner_share_the_lease(make: Backends, uri: str) -> None:
    one, two = make(uri, ttl=60), make(uri, ttl=60)
    one.apply(Plan((one.entry(SERVICE),)))
    two.apply(Plan((two.entry(replace(SERVICE, id="two")),)))
    assert [found.held for found in (*one.list().values(), *two.list().values())] == [True] * 4


def test_a_thousand_services_in_eight_transactions(own_server: Etcd, make: Backends) -> None:
    backend = make(f"etcd://{own_server.address}/s", ttl=60)
    entries = tuple(map(backend.entry, services(1000)))
    backend.list()
    before = requests(own_server, "Txn")
    assert backend.apply(Plan(entries)) == {}
    assert requests(own_server, "Txn") - before == 8
    assert len(backend.list()) == 1000
    assert backend.apply(Plan((), tuple(entry.key for entry in entries))) == {}
    assert backend.list() == {}


def test_transactions_stay_below_the_size_limit(make: Backends, uri: str) -> None:
    backend = make(f"{uri}?value=json")
    big = [replace(service, attrs={"x": "y" * 200_000}) for service in services(20)]
    assert backend.apply(plan(backend, *big)) == {}
    assert not plan(backend, *big)
    with pytest.raises(Rejected, match="bytes"):
        backend.entry(replace(SERVICE, attrs={"x": "y" * 300_000}))


@pytest.mark.parametrize("text", ["é/ü", "名前", "a b", "a:b", "a=b&c", "%2e%2e", "...", "-x"])
def test_every_legal_character(make: Backends, uri: str, text: str) -> None:
    backend = make(uri)
    service = replace(SERVICE, name=text, id=text.replace("/", "|"))
    backend.apply(plan(backend, service))
    assert not plan(backend, service)
    (found,) = backend.list().values()
    assert found.id == service.id


ILLEGAL = ["", ".", "..", "../x", "a/../b", "a//b", "/a", "a/", "a\n", "\0", "\x7f", "\u2028",
           "\ud800", "x" * 10_000]  # fmt: skip


@pytest.mark.parametrize("text", ILLEGAL)
def test_illegal_names_and_ids(make: Backends, text: str) -> None:
    backend = make("etcd://localhost/s")
    with pytest.raises(Rejected):
        backend.entry(replace(SERVICE, name=text))
    with pytest.raises(Rejected):
        backend.entry(replace(SERVICE, id=text))


def test_an_id_is_no_path(make: Backends) -> None:
    backend = make("etcd://localhost/s")
    assert backend.entry(replace(SERVICE, name="a/b", id="c")).key == "/s/a/b/c"
    with pytest.raises(Rejected):
        backend.entry(replace(SERVICE, name="a", id="b/c"))


@pytest.mark.parametrize(
    ("uri", "environ"),
    [
        ("etcd://h/s?values=json", {}),
        ("etcd://h/s?value=xml", {}),
        ("etcd://h/a/../b", {}),
        ("etcd://h//a", {}),
        ("etcd://user@h/s", {}),
        ("etcd://h/s", {"ETCDCTL_PASSWORD": "s3cret"}),
        ("etcd://h/s", {"ETCDCTL_USER": "u", "ETCDCTL_PASSWORD_FILE": "/nonexistent"}),
        ("etcd://h/s", {"ETCDCTL_USER": "u:s3cret", "ETCDCTL_USER_FILE": "/x"}),
        ("etcd-tls://h/s", {"ETCDCTL_CACERT": "/nonexistent"}),
        ("etcd-tls://h/s", {"ETCDCTL_CACERT": __file__, "ETCDCTL_CERT": __file__}),
    ],
)
def test_configuration_errors(make: Backends, uri: str, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make(uri, environ=environ)
    assert "s3cret" not in str(caught.value)


def test_connecting_is_logged_once(
    server: Etcd, make: Backends, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "registrator.etcd")
    backend = make(uri)
    assert caplog.messages == []
    backend.list()
    backend.list()
    (line,) = caplog.messages
    assert f": connected to {server.address}, etcd 3." in line
    assert "leader" in line
