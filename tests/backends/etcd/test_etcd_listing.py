"""A listing finds all that is this host's, and costs nothing for what is others'."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from support.etcd import Backends, ctl, grant, guarding, keys, lease_of, metrics, requests, running
from support.grpc_proxy import Answer, GRPCProxy
from support.servers import Etcd

from registrator.backend import Backend, Context, Unavailable
from registrator.backends.etcd.client import EtcdClient
from registrator.backends.etcd.known import TXN, Known, Pair
from registrator.backends.etcd.lease import SLOTS
from registrator.backends.etcd.listing import PER_LISTING
from registrator.backends.etcd.rpc import Code, etcdrpc
from registrator.model import Mark, Plan, Service
from registrator.sync.plan import Here, diff
from registrator.uri import parse

ADDRESS = "10.0.0.1"
HERE = Here("host", frozenset({ADDRESS}), frozenset({ADDRESS}))
SERVICE = Service("host:web1:80", "web", ADDRESS, 8080, 80)
# Listings until every lease was asked for.
ALL = 1 + SLOTS // PER_LISTING


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture
def proxy(server: Etcd) -> Iterator[GRPCProxy]:
    with closing(GRPCProxy(server.address)) as proxy:
        yield proxy


@pytest.fixture
def make() -> Iterator[Backends]:
    with closing(Backends()) as backends:
        yield backends


@pytest.fixture(params=["etcd", "skydns2"])
def uri(server: Etcd, request: pytest.FixtureRequest) -> str:
    """A place of its own in each layout."""
    token = f"t{uuid4().hex}"
    suffix = ".local" if request.param == "skydns2" else ""
    return f"{request.param}://{server.address}/{token}{suffix}"


def place(uri: str) -> str:
    """The start of all keys."""
    path = uri.rpartition("/")[2]
    return "/".join(["/skydns", *reversed(path.split("."))]) if "skydns2" in uri else f"/{path}"


def services(count: int) -> list[Service]:
    return [replace(SERVICE, id=f"host:web{n}:80", port=8000 + n) for n in range(count)]


def plan(backend: Backend, *wanted: Service) -> Plan:
    """Do what the reconciler does."""
    entries = {entry.key: entry for entry in map(backend.entry, wanted)}
    return diff(entries, backend.list(entries), HERE, dangling=lambda _: True)


def settle(backend: Backend, *wanted: Service) -> Plan:
    todo = plan(backend, *wanted)
    assert backend.apply(todo) == {}
    return todo


@pytest.mark.parametrize("change", ["put", "put --ignore-lease", "del", "put twice", "del and put"])
def test_a_change_between_two_looks_is_put_right(
    server: Etcd, make: Backends, uri: str, change: str
) -> None:
    backend = make(uri)
    wanted = services(3)
    settle(backend, *wanted)
    assert not plan(backend, *wanted)
    before = keys(server, place(uri))
    key = backend.entry(wanted[1]).key
    if change.startswith("del"):
        ctl(server, "del", "--", key)
    if "put" in change:
        flags = ["--ignore-lease"] if "ignore" in change else []
        for value in ("10.9.9.9:1", ADDRESS)[: 2 if "twice" in change else 1]:
            ctl(server, "put", *flags, "--", key, value)
    found = backend.list(before)
    # The reconciler takes what it held at the last look for its own, in spite of its lost mark.
    if key in found:
        assert found[key].mark in (Mark.OURS, Mark.NONE, Mark.UNTOLD)
    assert backend.apply(Plan((backend.entry(wanted[1]),))) == {}
    assert keys(server, place(uri)) == before
    assert not plan(backend, *wanted)


def test_what_is_altered_is_found_although_nobody_asks_for_it(
    server: Etcd, make: Backends, uri: str
) -> None:
    """Our lease no longer leads to the key. We held it, so it is looked at."""
    backend = make(uri)
    settle(backend, SERVICE)
    (key,) = backend.list()
    ctl(server, "put", "--", key, "10.9.9.9:1")
    (found,) = backend.list().values()
    assert (found.mark, found.content) == (Mark.NONE, "10.9.9.9:1")
    assert backend.apply(Plan((), (key,))) == {}
    assert backend.list() == {}


def test_a_lease_that_vanished_takes_the_entries_along(
    server: Etcd, make: Backends, uri: str
) -> None:
    backend = make(uri, ttl=60)
    wanted = services(3)
    settle(backend, *wanted)
    assert len(backend.list()) == 3
    ctl(server, "lease", "revoke", lease_of(server, backend.entry(wanted[0]).key))
    assert backend.list() == {}
    assert len(plan(backend, *wanted).register) == 3


def test_another_owner_at_our_key(server: Etcd, make: Backends, uri: str) -> None:
    """It is noticed at the next look, and at a write without a look. The key stays as it is."""
    mine, theirs = make(uri), make(uri, owner="engine-2")
    settle(mine, SERVICE)
    key = mine.entry(SERVICE).key
    ctl(server, "del", "--", key)
    assert theirs.apply(Plan((theirs.entry(replace(SERVICE, port=9)),))) == {}
    before = keys(server, place(uri))
    assert mine.apply(Plan((mine.entry(SERVICE),))) == {key: "another owner holds it"}
    for _ in range(2):
        todo = plan(mine, SERVICE)
        assert (todo.register, todo.deregister) == ((), ())
        assert todo.conflicts == {key: "another owner holds it"}
        # Now its revision is known. That does not make it ours.
        assert mine.apply(Plan((mine.entry(SERVICE),))) == {key: "another owner holds it"}
        assert mine.apply(Plan((), (key,))) == {}
    assert keys(server, place(uri)) == before
    assert mine.list() == {}
    theirs.apply(Plan((), (key,)))
    assert len(settle(mine, SERVICE).register) == 1


@pytest.mark.parametrize("ttl", [0, 60])
def test_a_predecessor_was_killed_while_containers_ended(
    make: Backends, uri: str, ttl: float
) -> None:
    """Also if no container of the same name runs any more, and if none runs at all."""
    others = [replace(SERVICE, id=f"host:db{n}:80", name=f"db{n}") for n in range(3)]
    before = make(uri, ttl=ttl)
    settle(before, SERVICE, *others, replace(SERVICE, id="custom"))
    kept = [SERVICE, others[0]]
    assert len(settle(make(uri, ttl=ttl), *kept).deregister) == 3
    assert not plan(make(uri, ttl=ttl), *kept)
    assert len(settle(make(uri, ttl=ttl)).deregister) == 2


def test_the_lasting_lease_is_found_after_a_ttl_is_given(make: Backends, uri: str) -> None:
    settle(make(uri), *services(3))
    after = make(uri, ttl=60)
    assert len(settle(after).deregister) == 3


def test_a_former_ttl_is_found_by_what_still_runs(make: Backends, uri: str) -> None:
    settle(make(uri, ttl=60), *services(3))
    todo = settle(make(uri), *services(1))
    assert (len(todo.register), len(todo.deregister)) == (1, 2)


def test_a_former_ttl_is_found_in_the_end(make: Backends, uri: str) -> None:
    """Nothing runs any more. The lease would end by itself, but that may take a day."""
    settle(make(uri, ttl=86_400), *services(3))
    after = make(uri, ttl=60)
    assert next(filter(None, (settle(after).deregister for _ in range(ALL))))
    assert after.list() == {}


def test_a_lease_that_a_predecessor_still_writes_under(make: Backends, uri: str) -> None:
    """Both run for a moment. A lease without keys stays in use for as long as it exists."""
    before = make(uri)
    settle(before, SERVICE)
    settle(before)
    after = make(uri, ttl=60)
    assert plan(after) == Plan()
    before.apply(Plan((before.entry(SERVICE),)))
    assert len(settle(after).deregister) == 1


def test_a_sibling_writes_under_our_lease(make: Backends, uri: str) -> None:
    """We made the lease after our last look, and have no key under it."""
    one = make(uri)
    assert plan(one) == Plan()
    entry = one.entry(SERVICE)
    assert one.apply(Plan((entry,))) == one.apply(Plan((), (entry.key,))) == {}
    two = make(uri)
    two.apply(Plan((two.entry(SERVICE),)))
    assert [found.mark for found in one.list().values()] == [Mark.OURS]


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_listing_that_failed_is_made_up_for(
    server: Etcd, proxy: GRPCProxy, make: Backends, uri: str, failing: int
) -> None:
    """The next one asks for the same leases again."""
    settle(make(uri), *services(3))
    backend = make(uri.replace(server.address, proxy.address), ttl=60)
    asked: list[None] = []

    def fail() -> None:
        asked.append(None)
        if len(asked) == failing:
            raise Answer(Code.UNAVAILABLE, "etcdserver: leader changed")

    proxy.before["LeaseTimeToLive"] = fail
    with pytest.raises(Unavailable, match="leader changed"):
        backend.list()
    assert len(backend.list()) == 3


def originals(service: Service, uri: str) -> tuple[str, str]:
    """A key and a value of gliderlabs/registrator."""
    key = f"{place(uri)}/{service.name}/{service.id}"
    plain = f"{service.address}:{service.port}"
    value = f'{{"host":"{service.address}","port":{service.port}}}'
    return key, value if "skydns2" in uri else plain


def test_the_originals_entries_of_ended_containers(server: Etcd, make: Backends, uri: str) -> None:
    """They are found below each name that runs here, also below one that begins to run later."""
    ended = replace(SERVICE, id="host:ended:80")
    later = replace(ended, name="later")
    strangers = [replace(ended, id="other:ended:80"), replace(ended, address="10.9.9.9", port=1)]
    written = dict(originals(each, uri) for each in (ended, later, strangers[0]))
    for key, value in written.items():
        ctl(server, "put", "--", key, value)
    backend = make(uri)
    gone = [originals(each, uri)[0] for each in (ended, later)]
    assert settle(backend, SERVICE).deregister == (gone[0],)
    assert settle(backend, SERVICE).deregister == ()
    new = replace(SERVICE, name="later")
    assert settle(backend, SERVICE, new).deregister == (gone[1],)
    left = {originals(strangers[0], uri)[0], *(backend.entry(each).key for each in (SERVICE, new))}
    assert set(keys(server, place(uri))) == left


def test_keys_elsewhere_on_our_lease_are_left_alone(server: Etcd, make: Backends, uri: str) -> None:
    backend = make(uri)
    settle(backend, SERVICE)
    lease = lease_of(server, backend.entry(SERVICE).key)
    elsewhere = [f"{place(uri)}x/web/{SERVICE.id}", f"/{uuid4().hex}"]
    for key in elsewhere:
        ctl(server, "put", f"--lease={lease}", "--", key, "10.0.0.1:1")
    for name in ("stray", "\udcff"):
        ctl(server, "put", f"--lease={lease}", "--", f"{place(uri)}/web/{name}", "10.0.0.1:1")
    todo = settle(make(uri), SERVICE)
    assert [key.rpartition("/")[2] for key in todo.deregister] == ["stray"]
    assert all(keys(server, key) for key in elsewhere)


@pytest.mark.parametrize("code", [Code.PERMISSION_DENIED, Code.UNIMPLEMENTED])
def test_without_the_right_to_see_a_leases_keys(
    server: Etcd, proxy: GRPCProxy, make: Backends, uri: str,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, code: Code,
) -> None:  # fmt: skip
    """All keys are listed instead, page by page. One line says so."""

    def deny() -> None:
        raise Answer(code, "etcdserver: permission denied")

    monkeypatch.setattr("registrator.backends.etcd.listing.PAGE", 3)
    others = make(uri, owner="engine-2")
    settle(others, *(replace(each, name="others") for each in services(5)))
    unmarked = dict([originals(replace(SERVICE, id="host:gone:80", name="gone"), uri)])
    for key, value in unmarked.items():
        ctl(server, "put", "--", key, value)
    settle(make(uri), *services(4))
    proxy.before["LeaseTimeToLive"] = deny
    backend = make(uri.replace(server.address, proxy.address))
    wanted = services(2)
    taken = others.entry(replace(SERVICE, id="host:web0:80", name="others"))
    ctl(server, "put", "--", f"{place(uri)}/gone/\udcff", "10.0.0.1:1")
    assert len(backend.list()) == 4 + len(unmarked)
    todo = plan(backend, *wanted, taken.service)
    assert len(todo.deregister) == 3
    assert {*unmarked} < {*todo.deregister}
    assert [*todo.conflicts] == [taken.key]
    assert backend.apply(todo) == {}
    ctl(server, "put", "--", backend.entry(wanted[0]).key, "10.9.9.9:1")
    backend.list()
    assert backend.apply(Plan((backend.entry(wanted[0]),))) == {}
    assert not plan(backend, *wanted, taken.service)
    assert len(others.list()) == 5
    (line,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert line.endswith(f"each listing reads all keys below {place(uri)}/ instead")
    # The right may come later. Then listings cost by what is ours again.
    del proxy.before["LeaseTimeToLive"]
    before = proxy.started["Range"]
    assert not plan(backend, *wanted, taken.service)
    assert proxy.started["Range"] == before


def test_without_the_right_to_see_the_keys_of_a_lease_that_a_wanted_key_shows(
    server: Etcd, proxy: GRPCProxy, make: Backends, uri: str
) -> None:
    wanted = services(3)
    settle(make(uri, ttl=60), *wanted)
    uri = uri.replace(server.address, proxy.address)
    assert make(uri).list() == {}
    likely = proxy.started["LeaseTimeToLive"]

    def deny() -> None:
        if proxy.started["LeaseTimeToLive"] > 2 * likely:
            raise Answer(Code.PERMISSION_DENIED, "etcdserver: permission denied")

    proxy.before["LeaseTimeToLive"] = deny
    assert len(settle(make(uri), wanted[0]).deregister) == 2
    assert proxy.started["LeaseTimeToLive"] == 2 * likely + 1


def test_a_key_that_we_may_not_read_on_a_lease_of_ours(
    tmp_path: Path, make: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """From 3.4.26 and 3.5.9 on, etcd then refuses to tell the lease's keys."""
    with guarding(tmp_path) as etcd:
        uri = f"etcd://agent:s3cret@{etcd.address}/s"
        wanted = services(3)
        settle(make(uri), *wanted)
        root = "root:r00t"
        lease = lease_of(etcd, make(uri).entry(wanted[0]).key, user=root)
        ctl(etcd, "put", f"--lease={lease}", "--", "/elsewhere", "x", user=root)
        backend = make(uri, ttl=60)
        for _ in range(2):
            assert len(backend.list()) == 3
        todo = settle(backend, *wanted[:2])
        assert (len(todo.register), len(todo.deregister)) == (2, 1)
        assert not plan(backend, *wanted[:2])
        lines = [r.message for r in caplog.records if r.levelno == logging.WARNING]
        version = tuple(map(int, ctl(etcd, "version").split()[2].split(".")))
        assert len(lines) == (version >= (3, 5, 9) or (3, 4, 26) <= version < (3, 5))
        assert "permission denied" in "".join(lines) or not lines


@pytest.mark.parametrize(("most", "reads"), [(1, 151), (7, 38), (64, 3)])
def test_a_server_that_takes_fewer_operations(
    tmp_path: Path, make: Backends, most: int, reads: int
) -> None:
    """The limit is known after the first refusals, as a power of two."""
    with running(tmp_path, f"--max-txn-ops={most}") as etcd:
        uri = f"etcd://{etcd.address}/s"
        wanted = [replace(each, name=each.id) for each in services(150)]
        settle(make(uri), *wanted)
        backend = make(uri)
        assert not plan(backend, *wanted)
        ctl(etcd, "put", "--ignore-lease", backend.entry(wanted[149]).key, "10.9.9.9:1")
        assert len(settle(backend, *wanted).register) == 1
        before = requests(etcd, "Txn")
        assert not plan(backend, *wanted)
        assert requests(etcd, "Txn") - before == reads


def cost(server: Etcd, backend: Backend, wanted: list[Service]) -> tuple[int, int]:
    """Requests and bytes that the server sends for a listing."""
    before = requests(server, r"\w+"), sent(server)
    assert not plan(backend, *wanted)
    return requests(server, r"\w+") - before[0], sent(server) - before[1]


def sent(server: Etcd) -> int:
    found = re.search(r"^etcd_network_client_grpc_sent_bytes_total (\S+)$", metrics(server), re.M)
    assert found is not None
    return int(float(found[1]))


def test_others_entries_add_nothing_to_the_cost(tmp_path: Path, make: Backends) -> None:
    """At the start, in the steady state, and after a change."""
    with running(tmp_path) as server:
        uri = f"etcd://{server.address}/s"
        wanted = [*services(100), *(replace(SERVICE, id=f"host:db{n}:1", name="db") for n in "ab")]
        first = make(uri)
        settle(first, *wanted)
        costs = []
        for others in (0, 2000):
            plant(server, others)
            again = make(uri)
            costs.append([cost(server, again, wanted), cost(server, again, wanted)])
            ctl(server, "put", "--ignore-lease", again.entry(wanted[0]).key, "10.9.9.9:1")
            assert len(settle(again, *wanted).register) == 1
            for _ in range(ALL):
                again.list()
            costs[-1].append(cost(server, again, wanted))
        assert [number for number, _ in costs[0]] == [number for number, _ in costs[1]]
        # The header has the store's revision, which takes more bytes as it grows.
        for (count, alone), (_, beside) in zip(*costs, strict=True):
            assert beside <= alone + 8 * count
        # One request for the lease, and one for the keys. No value comes over the wire.
        assert costs[0][2][0] == 2
        assert costs[0][2][1] < 102 * 40 < costs[0][0][1]


def plant(server: Etcd, count: int) -> None:
    """Entries of other hosts under our own services' names, under the lease of one of them."""
    lease = int(grant(server, 4711), 16) if count else 0
    with closing(EtcdClient(Context(parse(f"etcd://{server.address}/s")))) as client:
        for start in range(0, count, 100):
            puts = (
                etcdrpc.PutRequest(
                    key=f"/s/{name}/other{n}:web:80".encode(), value=b"10.0.0.2:80", lease=lease
                )
                for n in range(start, start + 50)
                for name in ("web", "db")
            )
            operations = [etcdrpc.RequestOp(request_put=put) for put in puts]
            client.call(TXN, etcdrpc.TxnRequest(success=operations))


def test_every_look_is_linearizable() -> None:
    """etcd answers at once, from what the member has, unless an operation asks for more."""
    sent: list[Any] = []

    def call(_: object, request: Any) -> Any:
        sent.append(request)
        return SimpleNamespace(succeeded=True, responses=[])

    known = Known(cast(EtcdClient, SimpleNamespace(call=call)))
    known.note(b"a", Pair(b"a", b"", 0, 7))
    known.note(b"b", None)
    known.look([b"a", b"b"])
    known.unleased([b"c"])
    assert len(sent) == 2
    for request in sent:
        operations = [each.request_range for each in (*request.success, *request.failure)]
        assert operations
        assert not any(each.serializable for each in operations)


def test_a_key_that_is_no_text_below_our_hostname_is_passed_over(
    server: Etcd, make: Backends, uri: str
) -> None:
    """Anybody may write one, and the agent looks there for the original's keys."""
    backend = make(uri)
    folder = backend.entry(SERVICE).key.rpartition("/")[0]
    ctl(server, "put", f"{folder}/host:\udcff", "10.0.0.9:1")
    settle(backend, SERVICE)
    assert list(backend.list()) == [backend.entry(SERVICE).key]
