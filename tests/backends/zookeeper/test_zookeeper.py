"""The ZooKeeper backend, against real servers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError, NoNodeError
from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl
from support.proxy import RESET_ON_CLOSE, TCPProxy
from support.servers import ZooKeeper
from support.wait import until
from support.zookeeper import OWNER, Backends, Watcher, client, writes

from registrator.backend import ConfigError, Context, Rejected, SessionLost, Unavailable
from registrator.backends.zookeeper.backend import ZooKeeperBackend
from registrator.backends.zookeeper.sockets import Sockets
from registrator.model import Identity, Mark, Plan, Service
from registrator.sync.plan import Here, by_key, diff
from registrator.uri import parse

ADDRESS = "10.0.0.1"
NUMBERS = count()

# Everybody may do all but see the children.
CLOSED = make_acl("world", "anyone", write=True, create=True, delete=True, admin=True)


def service(number: int = 0, name: str = "web", **changes: object) -> Service:
    made = Service(
        id=f"host:c{number}:80", name=name, address=ADDRESS, port=1000 + number,
        private_port=80, container_name=f"c{number}", container_hostname="abc123",
    )  # fmt: skip
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def reconcile(backend: ZooKeeperBackend, *services: Service) -> tuple[Plan, Mapping[str, str]]:
    """One round as the reconciler does it. Returns the plan and what was rejected."""
    desired, _ = by_key(backend.entry(one) for one in services)

    here = Here(OWNER.hostname, frozenset({ADDRESS}), frozenset({ADDRESS}))
    plan = diff(desired, backend.list(desired), here, dangling=lambda _: True)
    return plan, backend.apply(plan)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeper]:
    running = ZooKeeper(tmp_path_factory.mktemp("zookeeper"))
    running.start()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def reader(server: ZooKeeper) -> Iterator[KazooClient]:
    with client(server) as made:
        yield made


@pytest.fixture
def base() -> str:
    return f"/test{next(NUMBERS)}/services"


@pytest.fixture
def make(server: ZooKeeper, base: str) -> Iterator[Backends]:
    with closing(Backends(server, base)) as backends:
        yield backends


def offline(uri: str = "zookeeper://127.0.0.1:1/services", **environ: str) -> ZooKeeperBackend:
    return ZooKeeperBackend(Context(parse(uri), OWNER, environ=environ))


def connected_again(*backends: ZooKeeperBackend) -> None:
    """Wait for the next connection of agents into whose sessions another one has looked."""

    def answers(backend: ZooKeeperBackend) -> bool:
        backend.keepalive()
        return True

    for backend in backends:
        until(partial(answers, backend), "an answer", ignore=(Unavailable,))


# Entries


def test_the_node_is_the_originals_with_id_owner_and_host_after_it() -> None:
    made = offline().entry(service(3, tags=("b", "a"), attrs={"x": "1"}))
    assert made.key == "/services/web/10.0.0.1:1003"
    assert list(json.loads(made.content).items()) == [
        ("Name", "web"), ("IP", "10.0.0.1"), ("PublicPort", 1003), ("PrivatePort", 80),
        ("ContainerID", "abc123"), ("Tags", ["b", "a"]), ("Attrs", {"x": "1"}),
        ("ID", "host:c3:80"), ("Owner", "engine-1"), ("Host", "host"),
    ]  # fmt: skip
    assert made.alternate is None


def test_udp_has_a_second_choice_beside_tcp() -> None:
    assert offline().entry(service(protocol="udp")).alternate == "/services/web/10.0.0.1:1000:udp"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../../x", "a\0b", "a\nb", "a\x7fb", "\ue000", "\ufff0", "😀"]
)
def test_what_is_no_legal_node_name_is_rejected(name: str) -> None:
    with pytest.raises(Rejected, match="cannot be the name"):
        offline().entry(service(name=name))


def test_entries_that_do_not_fit_are_rejected() -> None:
    with pytest.raises(Rejected, match="bytes"):
        offline().entry(service(attrs={"x": "y" * 300_000}))
    with pytest.raises(Rejected, match="Unicode"):
        offline().entry(service(attrs={"x": "\udcff"}))
    with pytest.raises(Rejected, match="own"):
        offline("zookeeper://127.0.0.1:1").entry(service(name="zookeeper"))
    assert offline().entry(service(name="zookeeper"))


@pytest.mark.parametrize(
    ("uri", "environ", "message"),
    [
        ("zookeeper://h/s?x=1", {}, "unknown option x"),
        ("zookeeper://h/s?session-timeout=soon", {}, "session-timeout"),
        ("zookeeper://h/s?session-timeout=nan", {}, "session-timeout"),
        ("zookeeper://h/s?acl=world-read", {}, "needs a user"),
        ("zookeeper://u:p@h/s?acl=open", {}, "private or world-read"),
        ("zookeeper://u@h/s", {}, "both"),
        ("zookeeper://h/a//b", {}, "empty"),
        ("zookeeper://h/a/../b", {}, "relative"),
        ("zookeeper://h/zookeeper/x", {}, "own"),
        ("zookeeper://h/s", {"ZOOKEEPER_AUTH": "hunter2"}, "ZOOKEEPER_AUTH"),
        ("zookeeper://h/s", {"ZOOKEEPER_AUTH_FILE": "/nowhere"}, "/nowhere cannot be read"),
        ("zookeeper-tls://h/s", {"ZOOKEEPER_CACERT": "/nowhere"}, "ZOOKEEPER_CACERT /nowhere"),
        ("zookeeper-tls://h/s", {"ZOOKEEPER_KEY": "/nowhere"}, "without ZOOKEEPER_CERT"),
    ],
)
def test_mistakes_are_found_at_start(uri: str, environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        offline(uri, **environ)
    assert "hunter2" not in str(caught.value)


# Listing and writing


def test_the_tests_count_attempts_to_write_and_no_sessions(
    server: ZooKeeper, reader: KazooClient, base: str
) -> None:
    before = writes(server)
    with client(server) as other:
        assert other.get_children("/")
    assert writes(server) == before
    reader.create(base.split("/services")[0])
    with pytest.raises(NoNodeError):
        reader.create(f"{base}/web/x")
    reader.delete(base.split("/services")[0])
    assert writes(server) == before + 3


def test_nodes_come_and_go_with_services(make: Backends, reader: KazooClient, base: str) -> None:
    backend = make()
    assert backend.list() == {}
    reconcile(backend, service(0), service(1), service(2, "db"))
    assert sorted(reader.get_children(base)) == ["db", "web"]
    data, stat = reader.get(f"{base}/web/10.0.0.1:1000")
    assert stat.ephemeralOwner
    assert data.decode() == backend.entry(service()).content

    reconcile(backend, service(0, tags=("new",)))
    changed = reader.get(f"{base}/web/10.0.0.1:1000")
    assert json.loads(changed[0])["Tags"] == ["new"]
    assert changed[1].czxid == stat.czxid, "it was set in place"
    assert reader.get_children(base) == ["web"]

    reconcile(backend)
    assert reader.get_children(base) == []


def test_nothing_is_written_without_a_change(make: Backends, server: ZooKeeper) -> None:
    backend = make()
    services = [service(n) for n in range(20)]
    reconcile(backend, *services)
    before = writes(server)
    plan, _ = reconcile(backend, *services)
    backend.keepalive()
    assert not plan
    assert writes(server) == before


def test_a_listing_keeps_one_copy_of_what_was_written(make: Backends) -> None:
    backend = make()
    (written,) = reconcile(backend, service())[0].register

    assert backend.list()[written.key].content is written.content


def test_apply_is_idempotent(make: Backends, reader: KazooClient, base: str) -> None:
    backend, entry = make(), make().entry(service())
    for _ in range(2):
        assert backend.apply(Plan((entry,))) == {}
    reader.delete(entry.key)
    assert backend.apply(Plan((entry,))) == {}
    assert reader.exists(entry.key)
    for _ in range(2):
        assert backend.apply(Plan((), (entry.key,))) == {}
    reader.delete(base)
    assert backend.apply(Plan((), (entry.key,))) == {}
    assert backend.apply(Plan((entry,))) == {}
    assert list(backend.list()) == [entry.key]


def test_the_root_is_a_base_and_zookeepers_own_nodes_are_left_aside(
    make: Backends, reader: KazooClient
) -> None:
    backend = make(path="/")
    name = f"root{time.monotonic_ns()}"
    reconcile(backend, service(name=name))
    found = [path for path, actual in backend.list().items() if actual.mark is Mark.OURS]
    assert found == [f"/{name}/10.0.0.1:1000"]
    assert reader.exists(found[0])
    reconcile(backend)
    assert not reader.exists(f"/{name}")


def test_a_node_of_somebody_else_stays_when_a_service_of_its_name_goes(
    make: Backends, reader: KazooClient, base: str
) -> None:
    reader.create(f"{base}/web", b"theirs", makepath=True)
    before = reader.get(f"{base}/web")
    backend = make()
    assert reconcile(backend, service())[1] == {}
    reconcile(backend)
    data, stat = reader.get(f"{base}/web")
    assert (data, stat.mzxid, stat.numChildren) == (b"theirs", before[1].mzxid, 0)


def test_tcp_and_udp_on_one_port_both_have_a_node(make: Backends, reader: KazooClient) -> None:
    backend = make()
    udp = service(id="host:c:80:udp", protocol="udp")
    reconcile(backend, udp, service())
    assert sorted(path.rpartition("/")[2] for path in backend.list()) == [
        "10.0.0.1:1000",
        "10.0.0.1:1000:udp",
    ]
    assert not reconcile(backend, udp, service())[0]


@pytest.mark.parametrize(
    "name", ["größe", "服务", "a b", "a:b", "%2F", "$x{}", "\\", "\ufeff", "...", "x" * 10_000]
)
def test_every_other_name_is_taken_as_it_is(make: Backends, name: str) -> None:
    backend = make()
    wanted = service(name=name, address="fe80::1", id=name, tags=("\n", "😀", "\0", '"'))
    assert reconcile(backend, wanted)[1] == {}
    plan, _ = reconcile(backend, wanted)
    assert not plan


def test_others_and_unmarked_nodes_are_told_apart(
    make: Backends, reader: KazooClient, base: str
) -> None:
    ours, others = make(), make(owner=Identity("engine-2", "host"))
    reconcile(others, service(1))
    reconcile(ours, service(2))
    original = json.dumps({"Name": "web", "IP": "10.9.9.9"}).encode()
    reader.create(f"{base}/web/10.0.0.1:1003", original)
    reader.create(f"{base}/web/10.0.0.1:1004", b"\xff[" + b"[" * 100_000)
    reader.create(f"{base}/web/leader", b"no instance")
    keys = [f"{base}/web/10.0.0.1:{port}" for port in range(1000, 1005)]
    marks = {path.rpartition(":")[2]: (a.mark, a.address) for path, a in ours.list(keys).items()}
    assert marks == {
        "1001": (Mark.OTHERS, ADDRESS),
        "1002": (Mark.OURS, ADDRESS),
        "1003": (Mark.NONE, "10.9.9.9"),
        "1004": (Mark.NONE, ADDRESS),
    }


def test_another_owners_node_is_neither_written_over_nor_removed(
    make: Backends, reader: KazooClient
) -> None:
    ours, others = make(), make(owner=Identity("engine-2", "host"))
    reconcile(others, service())
    entry = ours.entry(service())
    data = reader.get(entry.key)
    for plan in (Plan((entry,)), Plan((), (entry.key,))):
        assert ours.apply(plan) == {entry.key: "another owner holds it"}
        assert reader.get(entry.key) == data


def originals(wanted: Service, **changes: object) -> bytes:
    """The node that the original would have written for this service, or something near it."""
    fields = {
        "Name": wanted.name, "IP": wanted.address, "PublicPort": wanted.port,
        "PrivatePort": wanted.private_port, "ContainerID": wanted.container_hostname,
        "Tags": [*reversed(wanted.tags)], "Attrs": {},
    }  # fmt: skip
    return json.dumps(fields | changes).encode()


def version_1(wanted: Service, **changes: object) -> bytes:
    """The node of version 1.0.0: it has no host."""
    return originals(wanted, **{"ID": wanted.id, "Owner": OWNER.owner} | changes)


@pytest.mark.parametrize("name", ["host:c0:80", "postgres"])
def test_the_originals_node_is_adopted(
    make: Backends, reader: KazooClient, base: str, name: str
) -> None:
    wanted = service(id=name, tags=("a", "b"))
    backend, path = make(), f"{base}/web/10.0.0.1:1000"
    reader.create(path, originals(wanted), makepath=True)
    assert reconcile(backend, wanted)[1] == {}
    data, stat = reader.get(path)
    assert stat.ephemeralOwner
    assert json.loads(data)["ID"] == name


@pytest.mark.parametrize("name", ["host:c0:80", "postgres"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        originals(service(), Tags=["static"]),
        originals(service(), Name="db"),
        originals(service(), PublicPort=5432),
        originals(service(), ContainerID="another"),
        b'{"Name": "web", "IP": "10.0.0.1", "PublicPort": 1000}',
    ],
)
def test_a_node_that_the_original_did_not_write_for_this_container_is_left(
    make: Backends, reader: KazooClient, base: str, name: str, content: bytes
) -> None:
    """As one that somebody registered by hand. It also stays when the container ends."""
    backend, path = make(), f"{base}/web/10.0.0.1:1000"
    reader.create(path, content, makepath=True)
    before = reader.get(path)
    assert list(reconcile(backend, service(id=name))[0].conflicts) == [path]
    reconcile(backend)
    assert reader.get(path) == before


def test_what_appears_after_the_last_look_is_left(
    make: Backends, reader: KazooClient, base: str
) -> None:
    backend, wanted = make(), service()
    entry = backend.entry(wanted)
    assert backend.list([entry.key]) == {}
    twin = version_1(wanted, Host="twin")
    for content in (b"theirs", originals(wanted), twin, version_1(wanted)):
        reader.create(entry.key, content, makepath=True)
        before = reader.get(entry.key)
        for plan in (Plan((entry,)), Plan((), (entry.key,))):
            assert [*backend.apply(plan)] == [entry.key]
            assert reader.get(entry.key) == before
        reader.delete(entry.key)
        assert backend.list([entry.key]) == {}


def test_a_twins_nodes_are_left(make: Backends, reader: KazooClient, base: str) -> None:
    """Two hosts with one engine id: at start, at every resync, and when services end."""
    one = make(owner=Identity("engine-1", "host"))
    two = make(owner=Identity("engine-1", "twin"))
    theirs = service(5, address="10.0.0.2", id="twin:c5:80")
    reconcile(one, service(0), service(1))
    desired = {entry.key: entry for entry in [two.entry(theirs)]}
    here = Here("twin", frozenset({"10.0.0.2"}), frozenset({"10.0.0.2"}))

    def resync() -> Plan:
        plan = diff(desired, two.list(desired), here, dangling=lambda _: True)
        assert two.apply(plan) == {}
        return plan

    resync()
    for _ in range(3):
        assert not resync()
        assert not reconcile(one, service(0), service(1))[0]
    assert len(reader.get_children(f"{base}/web")) == 3
    found = one.list(desired)[f"{base}/web/10.0.0.2:1005"]
    assert (found.mark, found.host) == (Mark.TWIN, "twin")
    for plan in (Plan((one.entry(theirs),)), Plan((), (*desired,))):
        other = make()
        assert [*other.apply(plan)] == [*desired], "it was not there at the last look"
    desired.clear()
    resync()
    assert len(reader.get_children(f"{base}/web")) == 2


@pytest.mark.parametrize(
    "former",
    [
        {"Host": "former-name"},
        {"Host": "host", "Owner": "engine-0"},
        {"Owner": "engine-0"},
        {},
    ],
    ids=["another-hostname", "another-engine", "another-engine-in-1.0.0", "1.0.0"],
)
def test_nodes_of_this_host_under_other_marks_are_taken_over_without_a_gap(
    make: Backends, server: ZooKeeper, base: str, former: dict[str, str]
) -> None:
    kept, gone = service(0), service(1)
    with client(server) as old:
        for each in (kept, gone):
            path = f"{base}/web/{each.address}:{each.port}"
            old.create(path, version_1(each, **former), ephemeral=True, makepath=True)
        backend = make(owner=Identity("engine-1", "host", ("engine-0",)))
        with Watcher(server, f"{base}/web", 2) as watcher:
            reconcile(backend, kept, gone)
            watcher.look_again()
        assert watcher.gap == 0
        assert {a.mark for a in backend.list().values()} == {Mark.OURS}
        assert not reconcile(make(owner=backend._identity), kept, gone)[0].deregister
        connected_again(backend)
        assert not reconcile(backend, kept, gone)[0]
        reconcile(backend, kept)
        assert [*backend.list()] == [f"{base}/web/10.0.0.1:1000"]


@pytest.mark.parametrize(("container", "adopted"), [("abc123", True), ("def456", False)])
def test_a_node_of_1_0_0_at_a_containers_address_is_taken_over_by_its_container(
    make: Backends, reader: KazooClient, base: str, container: str, adopted: bool
) -> None:
    """With ``-internal``, and an id of the user's own: a clone may have another one there."""
    wanted = service(id="shop", address="172.17.0.2")
    path = f"{base}/web/172.17.0.2:1000"
    reader.create(path, version_1(wanted, ContainerID=container), makepath=True)
    plan, _ = reconcile(make(), wanted)
    assert (bool(plan.register), bool(plan.conflicts)) == (adopted, not adopted)


def test_another_engines_node_is_not_ours_without_the_operators_word(
    make: Backends, reader: KazooClient, base: str
) -> None:
    path = f"{base}/web/10.0.0.1:1000"
    reader.create(path, version_1(service(), Owner="engine-0", Host="host"), makepath=True)
    assert [*reconcile(make(), service())[0].conflicts] == [path]


@pytest.mark.parametrize("content", [b"", b"10.0.0.1:9", originals(service()), b'{"Owner":"x"}'])
def test_our_node_is_put_right_whatever_somebody_writes_into_it(
    make: Backends, reader: KazooClient, content: bytes
) -> None:
    """It hangs on our session, so ZooKeeper itself says whose it is."""
    backend, entry = make(), make().entry(service())
    reconcile(backend, service())
    reader.set(entry.key, content)
    assert [*reconcile(backend, service())[0].register] == [entry]
    assert reader.get(entry.key)[0].decode() == entry.content
    reader.set(entry.key, content)
    reconcile(backend)
    assert not reader.exists(entry.key)


def test_one_that_cannot_be_written_does_not_hold_up_the_others(
    make: Backends, reader: KazooClient, base: str
) -> None:
    reader.ensure_path(base)
    reader.create(f"{base}/held", ephemeral=True)
    reader.create(f"{base}/closed", acl=[make_digest_acl("a", "b", all=True)])
    deep = f"{base}/deep/10.0.0.1:1000"
    reader.create(deep, originals(service(name="deep")), makepath=True)
    reader.create(f"{deep}/x")
    backend = make()
    names = ("a", "held", "closed", "deep", "z")
    _, rejected = reconcile(backend, *(service(name=name) for name in names))
    reasons = {path.split("/")[-2]: reason for path, reason in rejected.items()}
    assert reasons == {
        "held": "its parent is somebody's ephemeral node",
        "closed": "ZooKeeper's ACL does not allow it",
        "deep": "somebody made nodes under it",
    }
    assert {path.split("/")[-2] for path, a in backend.list().items() if a.held} == {"a", "z"}


def test_a_base_that_may_not_be_made_is_a_rejection(make: Backends, reader: KazooClient) -> None:
    reader.create("/locked", acl=[make_digest_acl("a", "b", all=True)])
    _, rejected = reconcile(make(path="/locked/deep/base"), service())
    assert list(rejected.values()) == ["the node above it is missing and cannot be made"]


def test_many_large_entries_are_split_over_transactions(make: Backends) -> None:
    backend = make()
    services = [service(n, attrs={"x": "y" * 200_000}) for n in range(12)]
    assert reconcile(backend, *services)[1] == {}
    assert len(backend.list()) == 12


def test_a_thousand_services_take_few_round_trips(make: Backends, server: ZooKeeper) -> None:
    backend = make()
    backend.list()
    entries = tuple(backend.entry(service(n, f"s{n}")) for n in range(1000))
    before = writes(server)
    assert backend.apply(Plan(entries)) == {}
    transactions = writes(server) - before
    assert transactions <= 6
    assert sum(actual.held for actual in backend.list().values()) == 1000


def test_services_of_two_hosts_come_and_go_at_once(make: Backends) -> None:
    """A service's node goes with its last child while the other host is just adding one."""
    errors: list[BaseException] = []

    def churn(backend: ZooKeeperBackend, own: Service) -> None:
        try:
            entry = backend.entry(own)
            for _ in range(60):
                assert backend.apply(Plan((entry,))) == {}
                assert entry.key in backend.list()
                assert backend.apply(Plan((), (entry.key,))) == {}
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=churn, args=(make(owner=Identity(f"o{n}", "h")), service(n)))
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


# Sessions


def test_closing_leaves_the_nodes_and_the_next_backend_takes_them_over_without_a_gap(
    make: Backends, server: ZooKeeper, base: str
) -> None:
    services = [service(n) for n in range(100)]
    first, second = make(), make()
    reconcile(first, *services)
    with Watcher(server, f"{base}/web", 100) as watcher:
        first.close()
        found = second.list()
        assert {actual.held for actual in found.values()} == {False}
        plan, rejected = reconcile(second, *services)
        assert (len(plan.register), rejected) == (100, {})
        assert not reconcile(second, *services)[0]
        watcher.look_again()
    assert watcher.gap == 0


def test_a_first_write_that_is_not_all_leaves_the_others_to_be_taken_over(
    make: Backends, reader: KazooClient, base: str
) -> None:
    """As where it takes long to inspect the containers, and one started while no agent ran."""
    services = [service(n) for n in range(5)]
    first, second = make(), make()
    reconcile(first, *services)
    first.close()
    second.list()
    assert second.apply(Plan((second.entry(service(9)),))) == {}
    assert len(reconcile(second, *services, service(9))[0].register) == 5
    for name in reader.get_children(f"{base}/web"):
        assert reader.get(f"{base}/web/{name}")[1].ephemeralOwner == second._session.id
    assert not reconcile(second, *services, service(9))[0]


def test_nodes_go_at_the_session_timeout_after_closing(
    make: Backends, reader: KazooClient, base: str
) -> None:
    begin = time.monotonic()
    backend = make(options="?session-timeout=1.5")
    reconcile(backend, service())
    backend.close()
    until(lambda: not reader.get_children(f"{base}/web"), "the end of the session")
    assert time.monotonic() - begin > 1


def test_a_live_siblings_nodes_are_left_and_put_back_when_they_vanish(
    make: Backends, reader: KazooClient, base: str
) -> None:
    woken = threading.Event()
    one = make(options="?session-timeout=4")
    two = make(wake=woken.set)
    for backend in (one, two):
        backend.list()
    connected_again(one)
    reconcile(one, service(0), service(1))
    assert not reconcile(two, service(0), service(1))[0], "it stands, held by the other one"
    holder = reader.get(f"{base}/web/10.0.0.1:1000")[1].ephemeralOwner
    assert reader.get(f"{base}/web/10.0.0.1:1001")[1].ephemeralOwner == holder
    assert not woken.is_set()

    one.close()
    assert woken.wait(60)
    assert len(reconcile(two, service(0), service(1))[0].register) == 2
    assert sorted(reader.get_children(f"{base}/web")) == ["10.0.0.1:1000", "10.0.0.1:1001"]


def test_two_that_register_the_same_at_once_agree(make: Backends, reader: KazooClient) -> None:
    backends = [make(), make()]
    for backend in backends:
        backend.list()
    connected_again(*backends)
    entries = [backend.entry(service()) for backend in backends]
    for backend, entry in zip(backends, entries, strict=True):
        assert backend.apply(Plan((entry,))) == {}
    for backend in backends:
        assert not reconcile(backend, service())[0]
    assert reader.get(entries[0].key)[1].ephemeralOwner == backends[0]._session.id


def test_a_restarted_sibling_takes_over_once_and_the_others_do_not_take_back(
    make: Backends, server: ZooKeeper
) -> None:
    services = [service(n) for n in range(10)]
    old = make()
    reconcile(old, *services)
    new = make()
    assert len(reconcile(new, *services)[0].register) == 10
    connected_again(old)
    before = writes(server)
    for _ in range(3):
        for backend in (old, new):
            assert not reconcile(backend, *services)[0]
    assert writes(server) == before


def test_what_a_sibling_registers_after_the_takeover_is_left(make: Backends) -> None:
    old, new = make(), make()
    reconcile(old, service(0))
    reconcile(new, service(0))
    connected_again(old)
    reconcile(old, service(0), service(1))
    assert not reconcile(new, service(0), service(1))[0]


def test_a_sibling_with_other_options_does_not_fight(
    make: Backends, server: ZooKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = make(), make()
    one.list()
    two.list()
    connected_again(one)
    reconcile(one, service())
    before = writes(server)
    reconcile(two, service(tags=("other",)))
    assert writes(server) == before
    assert "another agent of this host" in caplog.text


def test_a_node_removed_or_changed_behind_our_back_wakes(
    make: Backends, reader: KazooClient, base: str
) -> None:
    woken = threading.Event()
    backend = make(wake=woken.set)
    reconcile(backend, service(0), service(1))
    reconcile(backend, service(0, tags=("changed",)), service(2))
    assert not reconcile(backend, service(0, tags=("changed",)), service(2))[0]
    backend.keepalive()
    assert not woken.is_set(), "its own writes woke it"
    changes: list[Callable[[], object]] = [
        lambda: reader.delete(f"{base}/web/10.0.0.1:1000"),
        lambda: reader.set(f"{base}/web/10.0.0.1:1002", b"{}"),
    ]
    for change in changes:
        change()
        assert woken.wait(60)
        woken.clear()
        reconcile(backend, service(0), service(2))
    assert sum(actual.held for actual in backend.list().values()) == 2


def expire(backend: ZooKeeperBackend, server: ZooKeeper) -> None:
    """End its session as the ensemble would after the session timeout."""
    thief = KazooClient(server.address, client_id=backend._session.connect().client_id)
    thief.start(60)
    thief.stop()
    thief.close()


def test_an_expired_session_is_reported_and_repaired(make: Backends, server: ZooKeeper) -> None:
    woken = threading.Event()
    backend = make(wake=woken.set)
    reconcile(backend, service(0), service(1))
    expire(backend, server)
    assert woken.wait(60)
    with pytest.raises(SessionLost):
        backend.keepalive()
    assert backend.list() == {}
    assert len(reconcile(backend, service(0), service(1))[0].register) == 2
    backend.keepalive()
    assert not reconcile(backend, service(0), service(1))[0]


def test_a_session_that_moved_has_the_nodes_listed_soon(make: Backends) -> None:
    """They stand. But the new connection has none of the watches."""
    woken: list[str] = []
    backend = make(wake=lambda: woken.append("at once"), wake_soon=lambda: woken.append("soon"))
    reconcile(backend, service())
    assert woken == []
    assert backend._session._open is not None
    backend._session._open[1].cut()
    until(lambda: woken, "a new connection")
    assert len(backend.list()) == 1
    assert woken == ["soon"]


def test_after_an_expired_session_what_a_sibling_put_back_is_left(
    make: Backends, server: ZooKeeper
) -> None:
    woken = threading.Event()
    one, two = make(wake=woken.set), make()
    one.list()
    two.list()
    connected_again(one)
    reconcile(one, service())
    expire(one, server)
    assert len(reconcile(two, service())[0].register) == 1
    assert woken.wait(60)
    with pytest.raises(SessionLost):
        one.keepalive()
    assert not reconcile(one, service())[0]


class SlowProxy(TCPProxy):
    """Forwards `rate` bytes a second in each direction."""

    def __init__(self, upstream: str, rate: int) -> None:
        self.rate = rate
        super().__init__(upstream)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, counter: str
    ) -> None:
        while data := await source.read(self.rate // 20):
            sink.write(data)
            await sink.drain()
            await asyncio.sleep(len(data) / self.rate)
        with contextlib.suppress(OSError):
            sink.write_eof()


def test_a_session_outlives_a_listing_and_a_write_that_take_longer_than_its_timeout(
    server: ZooKeeper, reader: KazooClient
) -> None:
    """kazoo's own thread sends the signs of life, also between the answers of a listing.

    A busy machine may break the connection, but not the session.
    """
    proxy = SlowProxy(server.address, 1_000_000)
    uri = parse(f"zookeeper://{proxy.address}/slow?session-timeout=3")
    backend = ZooKeeperBackend(Context(uri, OWNER, timeout=5))
    another = ZooKeeperBackend(Context(uri, Identity("engine-2", "host"), timeout=5))
    entries = tuple(backend.entry(service(n, attrs={"x": "y" * 100_000})) for n in range(40))
    keys = {entry.key for entry in entries}

    def seconds(work: Callable[[], bool]) -> float:
        began = time.monotonic()
        until(work, "an answer", ignore=(Unavailable,))
        return time.monotonic() - began

    try:
        backend.list()
        another.list()
        sessions = backend._session.id, another._session.id
        assert seconds(lambda: backend.apply(Plan(entries)) == {}) > 3, "no longer than a session"
        assert seconds(lambda: another.list(keys).keys() == keys) > 3
        assert sessions == (backend._session.id, another._session.id)
        assert {reader.get(key)[1].ephemeralOwner for key in keys} == {sessions[0]}
    finally:
        backend.close()
        another.close()
        proxy.close()


# Access


LEAST = {"read": True, "create": True, "delete": True}


@pytest.fixture
def granted(server: ZooKeeper, base: str) -> Iterator[Callable[..., None]]:
    """Give kim these rights, and no others, to the base and to a service's node in it."""
    with client(server, "root:secret") as root:

        def grant(**rights: bool) -> None:
            acl = [
                make_digest_acl("root", "secret", all=True),
                make_digest_acl("kim", "secret", **rights),
            ]
            for path in (base, f"{base}/web"):
                root.ensure_path(path)
                root.set_acls(path, acl)

        yield grant
        # What kim made is kim's alone.
        root.add_auth("digest", "kim:secret")
        root.delete(base, recursive=True)


def test_the_least_rights_are_enough(
    make: Backends, server: ZooKeeper, granted: Callable[..., None], base: str
) -> None:
    """The table in docs/registries/zookeeper.md. Servers from 3.8.4 on ask for more than others."""
    granted(**LEAST)
    woken = threading.Event()
    backend = make(user="kim:secret@", wake=woken.set)
    services = [service(0), service(1), service(2, "db")]
    assert reconcile(backend, *services)[1] == {}
    before = writes(server)
    assert not reconcile(backend, *services)[0]
    backend.keepalive()
    assert writes(server) == before
    assert reconcile(backend, service(0, tags=("new",)), service(2, "db"))[1] == {}
    with client(server, "kim:secret") as kim:
        assert not woken.is_set()
        kim.delete(f"{base}/db/10.0.0.1:1002")
        assert woken.wait(60)
        for left in ((service(0), service(2, "db")), ()):
            assert reconcile(backend, *left)[1] == {}
        assert kim.get_children(base) == [], "empty nodes go, whoever made them"


@pytest.mark.parametrize("missing", LEAST)
def test_without_one_of_the_least_rights(
    make: Backends, server: ZooKeeper, granted: Callable[..., None], base: str, missing: str
) -> None:
    granted(**{right: True for right in LEAST if right != missing})
    backend = make(user="kim:secret@")
    if missing == "read":
        with pytest.raises(Unavailable, match=f"^{base} may not be read"):
            backend.list()
        return
    _, rejected = reconcile(backend, service(0), service(2, "db"))
    if missing == "create":
        assert rejected == {
            f"{base}/web/10.0.0.1:1000": "ZooKeeper's ACL does not allow it",
            f"{base}/db/10.0.0.1:1002": "the node above it is missing and cannot be made",
        }
        return
    assert rejected == {}
    _, refused = reconcile(backend)
    with client(server, "kim:secret") as kim:
        assert sorted(kim.get_children(base)) == ["db", "web"]
        assert kim.get_children(f"{base}/db") == []
        assert kim.get_children(f"{base}/web") == ["10.0.0.1:1000"]
    assert refused == {f"{base}/web/10.0.0.1:1000": "ZooKeeper's ACL does not allow it"}


@pytest.mark.parametrize("path", ["/closed/services", "/closed"])
def test_a_base_that_may_not_be_read_is_an_error_with_a_remedy(
    make: Backends, server: ZooKeeper, reader: KazooClient, path: str
) -> None:
    """Without one it would count as empty, and every resync would write all nodes again."""
    acl = [make_digest_acl("a", "b", all=True), CLOSED]
    reader.ensure_path(path)
    reader.set_acls(path, acl)
    backend = make(path=path)
    before = writes(server)
    for _ in range(2):
        with pytest.raises(Unavailable, match=f"^{path} may not be read; give .* right"):
            reconcile(backend, service())
    assert writes(server) == before
    reader.set_acls(path, OPEN_ACL_UNSAFE)
    reader.delete("/closed", recursive=True)


def test_what_stands_under_a_node_that_may_not_be_read_is_not_written_again(
    make: Backends, server: ZooKeeper, reader: KazooClient, base: str
) -> None:
    reader.ensure_path(f"{base}/web")
    reader.set_acls(f"{base}/web", [CLOSED])
    for backend in (make(), make()):
        reconcile(backend, service(0), service(1, "db"))
        before = writes(server)
        for _ in range(2):
            assert not reconcile(backend, service(0), service(1, "db"))[0]
        assert writes(server) == before
        backend.close()
    last = make()
    reconcile(last, service(0), service(1, "db"))
    reconcile(last)
    with client(server, "a:b") as there:
        assert not there.exists(f"{base}/web/10.0.0.1:1000")


def test_a_server_that_asks_for_a_login_is_told_as_that(tmp_path: Path) -> None:
    flags = ("-Dzookeeper.enforce.auth.enabled=true", "-Dzookeeper.enforce.auth.schemes=digest")
    server = ZooKeeper(tmp_path, jvm=flags)

    def backend(user: str = "") -> ZooKeeperBackend:
        uri = parse(f"zookeeper://{user}{server.address}/enforced")
        return ZooKeeperBackend(Context(uri, OWNER, timeout=5))

    without, known = backend(), backend("kim:secret@")
    try:
        server.start()
        for call in (without.list, without.keepalive, without.list):
            with pytest.raises(
                Unavailable, match=r"only clients with a login.*ZOOKEEPER_AUTH_FILE"
            ):
                call()
        assert reconcile(known, service())[1] == {}
        assert len(known.list()) == 1
    finally:
        without.close()
        known.close()
        server.remove()


def test_nodes_are_the_users_alone(make: Backends, server: ZooKeeper, base: str) -> None:
    backend = make(user="kim:pass%3Aword@")
    assert reconcile(backend, service())[1] == {}
    path = f"{base}/web/10.0.0.1:1000"
    with client(server) as stranger:
        for node in (base, f"{base}/web", path):
            with pytest.raises(NoAuthError):
                stranger.get(node)
    with client(server, "kim:pass:word") as kim:
        assert kim.get(path)
    assert reconcile(make(ZOOKEEPER_AUTH="kim:pass:word"), service())[1] == {}
    connected_again(backend)
    with pytest.raises(Unavailable, match=f"^{base} may not be read"):
        reconcile(make(), service())
    reconcile(backend)
    assert backend.list() == {}


def test_the_world_may_read_by_option(
    make: Backends, server: ZooKeeper, base: str, tmp_path: Path
) -> None:
    secret = tmp_path / "auth"
    secret.write_text("kim:hunter2\n")
    backend = make(options="?acl=world-read", ZOOKEEPER_AUTH_FILE=str(secret))
    reconcile(backend, service())
    path = f"{base}/web/10.0.0.1:1000"
    with client(server) as stranger:
        assert stranger.get(path)[0].decode() == backend.entry(service()).content
        with pytest.raises(NoAuthError):
            stranger.set(path, b"")
        with pytest.raises(NoAuthError):
            stranger.create(f"{base}/web/x")


def test_every_call_ends_at_a_frozen_server(make: Backends, server: ZooKeeper) -> None:
    backend = make(timeout=0.5)
    # So short a limit also ends calls at a busy machine.
    until(lambda: backend.list() is not None, "a listing", ignore=(Unavailable,))
    plan = Plan((backend.entry(service()),))
    calls = (backend.keepalive, backend.list, lambda: backend.apply(plan), backend.close)
    server.freeze()
    try:
        for call in calls:
            with pytest.raises(Unavailable) if call != backend.close else nullcontext():
                call()
    finally:
        server.thaw()


def test_a_member_that_did_not_answer_is_passed_over_once() -> None:
    sockets = Sockets(1, None)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = mute.getsockname()
        with sockets.create_connection(address):
            sockets.cut()
        with pytest.raises(TimeoutError):
            sockets.create_connection(address)
        sockets.create_connection(address).close()


class LateContext(ssl.SSLContext):
    """It takes a socket when the other side has reset the connection, if there is one."""

    wraps = threading.Event()

    def wrap_socket(self, *words: Any, **options: Any) -> ssl.SSLSocket:
        self.wraps.set()
        select.select([words[0]], [], [], 60)
        return super().wrap_socket(*words, **options)


def test_a_connection_that_is_reset_before_its_handshake_is_closed() -> None:
    """Python leaves it open itself, if it was connected before it was made one of TLS."""
    context = LateContext(ssl.PROTOCOL_TLS_CLIENT)
    tls: Any = SimpleNamespace(handshake=lambda: context)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def reset() -> None:
            with listener.accept()[0] as connection:
                assert context.wraps.wait(60)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

        ended = pool.submit(reset)
        with pytest.raises(OSError, match=r"reset|closed"):
            Sockets(60, tls).create_connection(listener.getsockname(), "localhost")
        ended.result(60)
        made = [each for each in gc.get_objects() if isinstance(each, ssl.SSLSocket)]
    assert [each for each in made if each.fileno() != -1] == []


def test_host_names_that_do_not_resolve() -> None:
    backend = ZooKeeperBackend(Context(parse("zookeeper://nowhere.invalid/x"), timeout=0.5))
    threads = threading.active_count()
    for _ in range(3):
        with pytest.raises(Unavailable, match="no address found"):
            backend.list()
    backend.close()
    until(lambda: threading.active_count() <= threads, "the end of its threads")


def test_a_handshake_without_an_answer_is_told_by_address() -> None:
    """The wait for a connection ends a little before the handshake's own."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        backend = ZooKeeperBackend(Context(parse(f"zookeeper-tls://{address}/x"), timeout=0.3))
        for _ in range(3):
            with pytest.raises(Unavailable, match=f"^{address}: no connection within 0.3 s$"):
                backend.list()
        backend.close()


def test_nothing_answers(caplog: pytest.LogCaptureFixture) -> None:
    backend = ZooKeeperBackend(
        Context(parse("zookeeper://kim:hunter2@127.0.0.1:1/services"), timeout=0.3)
    )
    errors: list[str] = []

    def refused() -> bool:
        # On a busy machine the time may be over before the first attempt.
        with pytest.raises(Unavailable) as caught:
            backend.list()
        errors.append(str(caught.value))
        return "127.0.0.1:1: Connection refused" in errors[-1]

    until(refused, "the reason")
    backend.close()
    backend.close()
    assert "hunter2" not in "".join(errors) + caplog.text + repr(backend)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "nonsense",
    [b"\0\0\0\2??", b"\0\0\0\x10" + b"\7" * 16, b"\xff" * 64, b"\0\0\0\x10" + b"\0" * 16],
    ids=["short", "another-call", "huge", "nobody-asked"],
)
def test_nonsense_from_a_member_ends_the_connection_and_no_more(
    server: ZooKeeper, nonsense: bytes
) -> None:
    """Its threads' exceptions would fail this test, as they would end the agent."""
    proxy = TCPProxy(server.address)
    uri = parse(f"zookeeper://{proxy.address}/nonsense?session-timeout=2")
    backend = ZooKeeperBackend(Context(uri, OWNER, timeout=0.5))
    try:
        until(lambda: reconcile(backend, service()), "a write", ignore=(Unavailable, SessionLost))
        proxy.instead = nonsense
        with pytest.raises((Unavailable, SessionLost)):
            backend.list()
        proxy.instead = b""
        until(lambda: reconcile(backend, service(1)), "a write", ignore=(Unavailable, SessionLost))
    finally:
        backend.close()
        proxy.close()


def test_a_wiped_server_is_filled_again(tmp_path: Path) -> None:
    """It knows nothing of the transactions that our session has seen, and refuses it for ever."""
    server = ZooKeeper(tmp_path)
    context = Context(
        parse(f"zookeeper://{server.address}/wiped?session-timeout=2"), OWNER, timeout=0.5
    )
    backend = ZooKeeperBackend(context)
    try:
        server.start()
        for port in range(5):
            written = partial(reconcile, backend, service(port))
            until(written, "a write", ignore=(Unavailable, SessionLost))
        server.stop()
        server.wipe()
        server.start()
        until(lambda: reconcile(backend, service()), "a write", ignore=(Unavailable, SessionLost))
        with client(server) as reader:
            assert reader.get_children("/wiped/web") == [f"{ADDRESS}:1000"]
    finally:
        backend.close()
        server.remove()
