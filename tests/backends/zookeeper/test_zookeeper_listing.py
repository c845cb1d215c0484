"""Listings in ZooKeeper: what they find and what they cost, against a real server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import count

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, NoAuthError, NodeExistsError, NoNodeError
from kazoo.protocol.states import WatchedEvent
from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl
from support.proxy import TCPProxy
from support.servers import ZooKeeper
from support.wait import until
from support.zookeeper import Backends, BeforeVersion36, client, writes

from registrator.backend import Context, SessionLost, Unavailable
from registrator.backends.zookeeper import records as module
from registrator.backends.zookeeper.backend import ZooKeeperBackend
from registrator.backends.zookeeper.ephemerals import ephemerals
from registrator.backends.zookeeper.records import SLOTS
from registrator.backends.zookeeper.session import Session
from registrator.backends.zookeeper.settings import Settings
from registrator.model import Actual, Identity, Mark, Plan, Service
from registrator.sync.plan import Here, by_key, diff

ADDRESS, ELSEWHERE = "10.0.0.1", "10.0.0.2"
OTHER = Identity("engine-2", "other")
HERE = Here("host", frozenset({ADDRESS}), frozenset({ADDRESS}))

NUMBERS = count()


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


def service(number: int = 0, name: str = "web", **changes: object) -> Service:
    made = Service(f"host:c{number}:80", name, ADDRESS, 1000 + number, 80)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def keys(backend: ZooKeeperBackend, *services: Service) -> set[str]:
    return {backend.entry(each).key for each in services}


def reconcile(backend: ZooKeeperBackend, *services: Service, cleanup: bool = True) -> Plan:
    """One round as the reconciler does it. Nothing is refused."""
    desired, _ = by_key(backend.entry(one) for one in services)
    plan = diff(desired, backend.list(desired), HERE, dangling=lambda _: cleanup)
    assert backend.apply(plan) == {}
    return plan


def look(backend: ZooKeeperBackend, *services: Service) -> Mapping[str, Actual]:
    """A listing, after the connection broke, as it does when another agent looks for nodes."""
    wanted = keys(backend, *services)
    found: list[Mapping[str, Actual]] = []

    def listed() -> bool:
        found[:] = [backend.list(wanted)]
        return True

    until(listed, "a listing", ignore=(Unavailable,))
    return found[0]


def settle(backend: ZooKeeperBackend, *services: Service) -> None:
    """Have all right, even if another agent looks into this one's session meanwhile."""
    until(lambda: not reconcile(backend, *services), "no change", ignore=(Unavailable,))


def records(reader: KazooClient, base: str) -> dict[str, int]:
    """The session of each record."""
    folder = f"{base}.registrator"
    if not reader.exists(folder):
        return {}
    found = {}
    for name in reader.get_children(folder):
        with contextlib.suppress(NoNodeError):  # It may end meanwhile.
            if "-" in name:
                found[name] = reader.get(f"{folder}/{name}")[1].ephemeralOwner
    return found


@pytest.fixture
def proxy(server: ZooKeeper) -> Iterator[TCPProxy]:
    with closing(TCPProxy(server.address)) as made:
        yield made


# Cost


class Meter:
    """Counts the requests that the server gets, and the bytes that come through a proxy."""

    def __init__(self, server: ZooKeeper, proxy: TCPProxy) -> None:
        self._server, self._proxy = server, proxy

    def _packets(self) -> int:
        found = re.search(r"^Received: (\d+)", self._server.four_letters("srvr"), re.MULTILINE)
        assert found is not None
        return int(found[1])

    def of(self, work: Callable[[], object]) -> tuple[int, int]:
        """The requests and the bytes of `work`. A session of 60 s sends no ping meanwhile."""
        packets, received = self._packets(), self._proxy.received
        asking = self._packets() - packets
        work()
        return self._packets() - packets - 2 * asking, self._proxy.received - received


def crowd(server: ZooKeeper, base: str, names: int, each: int) -> None:
    """Services of other hosts, under our names and under others."""
    data = json.dumps({"Name": "web", "IP": ELSEWHERE, "Owner": "engine-2", "Host": "other"})
    with client(server) as many:
        for number in range(names):
            many.ensure_path(f"{base}/web{number}")
            made = [
                many.create_async(f"{base}/web{number}/{ELSEWHERE}:{port}", data.encode())
                for port in range(each)
            ]
            for answer in made:
                answer.get()


def costs_beside(
    make: Backends, server: ZooKeeper, proxy: TCPProxy, place: str, others: int
) -> list[tuple[int, int]]:
    """The requests and the bytes of a start, of a resync, and of the next agent's start."""
    own = [service(n, f"web{n % 10}") for n in range(50)]
    meter = Meter(server, proxy)
    crowd(server, place, 10, others)
    crowd(server, f"{place}/x", others, 1)
    backend = make(path=place, address=proxy.address, options="?session-timeout=60")
    start = meter.of(lambda: reconcile(backend, *own))
    assert sum(found.held for found in backend.list().values()) == 50
    resync = meter.of(lambda: reconcile(backend, *own))
    backend.close()
    again = make(path=place, address=proxy.address, options="?session-timeout=60")
    return [start, resync, meter.of(lambda: reconcile(again, *own))]


def test_what_others_have_adds_nothing_to_a_start_or_a_resync(
    make: Backends, server: ZooKeeper, proxy: TCPProxy, base: str
) -> None:
    """The server counts what other sessions send, too. That only adds, so the least is right."""
    few, many = (
        [*map(min, *(costs_beside(make, server, proxy, f"{base}-{n:03}-{i}", n) for i in "ab"))]
        for n in (1, 300)
    )
    assert [requests for requests, _ in few] == [requests for requests, _ in many]
    for (_, least), (_, most) in zip(few, many, strict=True):
        assert abs(least - most) < 100, "bytes"


def test_a_resync_without_a_change_is_three_requests(
    make: Backends, server: ZooKeeper, proxy: TCPProxy
) -> None:
    own = [service(n, f"web{n % 10}") for n in range(100)]
    backend = make(address=proxy.address, options="?session-timeout=60")
    reconcile(backend, *own)
    backend.list(keys(backend, *own))
    before = writes(server)
    requests, received = Meter(server, proxy).of(lambda: reconcile(backend, *own))
    assert requests == 3
    assert received < 10_000
    assert writes(server) == before


def test_kazoo_sends_a_request_that_it_has_no_method_for(
    make: Backends, reader: KazooClient, base: str
) -> None:
    """Another major version of kazoo may not. pyproject.toml allows this one only."""
    reader.create(f"{base}/x/größe", ephemeral=True, makepath=True)
    reader.create(f"{base}/y", ephemeral=True)
    assert sorted(ephemerals(reader, base).get(60)) == [f"{base}/x/größe", f"{base}/y"]
    assert ephemerals(reader, f"{base}/x").get(60) == [f"{base}/x/größe"]
    assert ephemerals(reader, f"{base}z").get(60) == []


# Between two looks


CHANGES: Mapping[str, Callable[[KazooClient, str], object]] = {
    "altered": lambda reader, path: reader.set(path, b"{}"),
    "deleted": lambda reader, path: reader.delete(path),
    "replaced": lambda reader, path: (reader.delete(path), reader.create(path, b'{"IP": "x"}')),
}


def after(plan: Plan, path: str) -> str:
    """The part that a path has in a plan."""
    if path in plan.conflicts:
        return "conflict"
    return "register" if path in {entry.key for entry in plan.register} else "nothing"


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_by_the_next_look(
    make: Backends, reader: KazooClient, change: str
) -> None:
    backend, entry = make(), make().entry(service())
    reconcile(backend, service(), service(1))
    for _ in range(3):
        assert not reconcile(backend, service(), service(1))
    CHANGES[change](reader, entry.key)
    plan = reconcile(backend, service(), service(1))
    assert after(plan, entry.key) == ("conflict" if change == "replaced" else "register")
    assert len(plan.register) == (change != "replaced")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_that_no_watch_told(
    make: Backends, reader: KazooClient, proxy: TCPProxy, change: str
) -> None:
    """The connection was gone, and with it all watches."""
    backend = make(address=proxy.address, options="?session-timeout=60", timeout=1)
    entry = backend.entry(service())
    reconcile(backend, service(), service(1))
    proxy.freeze()
    proxy.cut()
    CHANGES[change](reader, entry.key)
    with pytest.raises(Unavailable):
        backend.list()
    proxy.thaw()
    found = look(backend, service(), service(1))
    told = {"altered": "{}", "deleted": None, "replaced": '{"IP": "x"}'}
    assert entry.key not in found or found[entry.key].content == told[change]
    assert after(reconcile(backend, service()), entry.key) != "nothing"


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_that_a_thread_has_not_noted_yet(
    make: Backends, reader: KazooClient, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine lets kazoo's thread for watches wait."""
    real = Session._on_change

    def late(session: Session, token: int, event: WatchedEvent) -> None:
        time.sleep(0.5)
        real(session, token, event)

    monkeypatch.setattr(Session, "_on_change", late)
    backend, entry = make(), make().entry(service())
    reconcile(backend, service(), service(1))
    CHANGES[change](reader, entry.key)
    assert after(reconcile(backend, service(), service(1)), entry.key) != "nothing"


@pytest.mark.parametrize("kind", [TCPProxy, BeforeVersion36])
def test_a_deletion_is_seen_without_any_watch(
    make: Backends, server: ZooKeeper, reader: KazooClient, kind: type[TCPProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Session, "_on_change", lambda *_: None)
    with closing(kind(server.address)) as proxy:
        backend = make(address=proxy.address, options="?session-timeout=60")
        entry = backend.entry(service())
        reconcile(backend, service(), service(1))
        reader.delete(entry.key)
        assert [*reconcile(backend, service(), service(1)).register] == [entry]


def test_a_name_that_comes_back_is_one_write(make: Backends, server: ZooKeeper) -> None:
    backend = make()
    reconcile(backend, service())
    reconcile(backend)
    before = writes(server)
    assert backend.apply(Plan((backend.entry(service()),))) == {}
    assert writes(server) == before + 1


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_just_before_the_watch_is_seen(
    make: Backends, reader: KazooClient, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken = threading.Event()
    backend = make(wake=woken.set)
    entry = backend.entry(service())
    real = Session.watch

    def late(session: Session, client: KazooClient, paths: list[str]) -> Mapping[str, object]:
        monkeypatch.undo()
        CHANGES[change](reader, entry.key)
        return real(session, client, paths)

    backend.list(keys(backend, service()))
    monkeypatch.setattr(Session, "watch", late)
    assert backend.apply(Plan((entry,))) == {}
    assert woken.is_set()
    assert after(reconcile(backend, service()), entry.key) != "nothing"


def test_a_write_that_lands_late_is_found(make: Backends, base: str) -> None:
    """A write that timed out may be carried out after the next listing."""
    backend = make()
    reconcile(backend, service())
    own = backend._session.connect()
    own.create(f"{base}/late/{ADDRESS}:1", b"{}", ephemeral=True, makepath=True)
    plan = reconcile(backend, service())
    assert plan.deregister == (f"{base}/late/{ADDRESS}:1",)


def test_another_owners_node_at_our_path_is_seen_until_it_goes(
    make: Backends, reader: KazooClient
) -> None:
    backend, other = make(), make(owner=OTHER)
    theirs = service(id="other:c0:80")
    reconcile(other, theirs)
    for _ in range(2):
        plan = reconcile(backend, service(), service(1))
        assert [*plan.conflicts] == [other.entry(theirs).key]
    reader.delete(other.entry(theirs).key)
    assert len(reconcile(backend, service(), service(1)).register) == 1


def test_another_owners_node_is_forgotten_when_nobody_wants_its_path(
    make: Backends, reader: KazooClient
) -> None:
    backend, other = make(), make(owner=OTHER)
    theirs = service(id="other:c0:80")
    reconcile(other, theirs)
    before = reader.get(other.entry(theirs).key)
    assert backend.list(keys(other, theirs)).keys() == keys(other, theirs)
    assert backend.list() == {}
    assert reader.get(other.entry(theirs).key) == before


def test_what_stood_at_a_key_that_nobody_looked_at_is_decided_at_once(
    make: Backends, reader: KazooClient
) -> None:
    """As the original's node of a container that starts while both agents run."""
    woken = threading.Event()
    backend, wanted = make(wake=woken.set), service(container_hostname="abc")
    backend.list()
    entry = backend.entry(wanted)
    original = {
        "Name": "web", "IP": ADDRESS, "PublicPort": 1000, "PrivatePort": 80,
        "ContainerID": "abc", "Tags": [], "Attrs": {},
    }  # fmt: skip
    reader.create(entry.key, json.dumps(original).encode(), makepath=True)
    assert [*backend.apply(Plan((entry,)))] == [entry.key]
    assert woken.is_set()
    assert [*reconcile(backend, wanted).register] == [entry]
    woken.clear()
    reader.delete(entry.key)
    look(backend, wanted)
    woken.clear()
    reader.create(entry.key, b"theirs")
    assert [*backend.apply(Plan((entry,)))] == [entry.key]
    assert not woken.is_set(), "a listing has looked there, so the next one is early enough"


@pytest.mark.parametrize("change", ["made", "removed"])
def test_parents_that_others_change_meanwhile_do_not_split_a_write(
    make: Backends, server: ZooKeeper, reader: KazooClient, base: str, change: str
) -> None:
    """As when many hosts start at one moment. One by one, that would be 200 transactions."""
    own = [service(n, f"name{n % 50}") for n in range(200)]
    backend, names = make(), [f"{base}/name{n}" for n in range(50)]
    entries = tuple(map(backend.entry, own))
    if change == "removed":
        for name in names:
            reader.ensure_path(name)
    backend.list(keys(backend, *own))
    for name in names:
        (reader.ensure_path if change == "made" else reader.delete)(name)
    before = writes(server)
    assert backend.apply(Plan(entries)) == {}
    assert writes(server) - before <= 4 + (len(names) if change == "removed" else 0)
    assert sum(found.held for found in backend.list(keys(backend, *own)).values()) == 200


# Former agents of this host


def test_what_a_killed_agent_left_is_found(make: Backends, reader: KazooClient, base: str) -> None:
    """Two containers ended meanwhile, one of them the last one with its name."""
    first = make()
    reconcile(first, service(0), service(1), service(2, "old"))
    first.close()
    second = make()
    found = second.list(keys(second, service(0)))
    assert found.keys() == keys(second, service(0), service(1), service(2, "old"))
    assert {actual.held for actual in found.values()} == {False}
    plan = reconcile(second, service(0))
    assert (len(plan.register), len(plan.deregister)) == (1, 2)
    assert reader.get_children(base) == ["web"]
    assert not reconcile(second, service(0))


def test_what_a_killed_agent_left_stays_without_cleanup(
    make: Backends, reader: KazooClient
) -> None:
    first = make()
    reconcile(first, service(0), service(1, "old"))
    first.close()
    second = make()
    assert len(reconcile(second, service(0), cleanup=False).register) == 1
    (old,) = keys(first, service(1, "old"))
    assert reader.get(old)[1].ephemeralOwner == first._session.id


def test_what_several_killed_agents_left_is_found(make: Backends, base: str) -> None:
    """Each was killed before it took over what the one before had."""
    left = [service(n, f"old{n}") for n in range(4)]
    for each in left:
        agent = make()
        reconcile(agent, each, cleanup=False)
        agent.close()
    last = make()
    assert last.list().keys() == keys(last, *left)


def test_any_number_of_agents_may_be_killed_in_a_row(
    make: Backends, reader: KazooClient, base: str
) -> None:
    for number in range(SLOTS + 4):
        agent = make(options="?session-timeout=60")
        plan = reconcile(agent, service(number, f"name{number}"))
        assert len(plan.deregister) == (number > 0)
        assert agent._session.id in records(reader, base).values()
        agent.close()
    assert len(records(reader, base)) == 2


def test_an_agent_of_a_former_engine_is_found(make: Backends) -> None:
    first = make(owner=Identity("engine-0", "host"))
    reconcile(first, service(0, "old"))
    first.close()
    second = make(owner=Identity("engine-1", "host", ("engine-0",)))
    assert [*second.list()] == [*keys(first, service(0, "old"))]


@pytest.mark.parametrize(
    "stranger", [Identity("engine-1", "twin"), Identity("engine-2", "host"), OTHER]
)
def test_an_agent_of_another_host_is_not_asked(make: Backends, stranger: Identity) -> None:
    other = make(owner=stranger)
    reconcile(other, service(0))
    opened = other._session._open
    assert opened is not None
    before = opened[1].opened
    assert make().list() == {}
    other.keepalive()
    assert opened[1].opened == before


def test_a_clone_is_named_although_nothing_of_it_is_read(
    make: Backends, reader: KazooClient, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at once: a host that got another name finds its own claim until its session ends."""
    ahead = 0.0
    monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + ahead)
    one, two = make(), make(owner=Identity("engine-1", "twin"))
    reconcile(one, service(0))
    for backend in (one, two, two):
        assert not {a.host for a in backend.list().values() if a.mark is Mark.TWIN}
    ahead = 30.0
    ((path, found),) = two.list().items()
    assert (found.mark, found.host) == (Mark.TWIN, "host")
    here = Here("twin", frozenset({ADDRESS}), frozenset({ADDRESS}))
    assert not diff({}, {path: found}, here, dangling=lambda _: True)
    reader.delete(path)
    assert two.list() == {}
    assert reader.get(path)[0] == b"twin", "it has the claim now"
    assert not reconcile(one, service(0))


def test_a_record_goes_with_its_session(make: Backends, reader: KazooClient, base: str) -> None:
    first = make(options="?session-timeout=1.5")
    reconcile(first, service())
    assert records(reader, base) == dict.fromkeys(records(reader, base), first._session.id)
    first.close()
    until(lambda: not records(reader, base), "the end of the session")


def test_a_record_that_somebody_removes_is_made_again(
    make: Backends, reader: KazooClient, base: str
) -> None:
    backend = make()
    reconcile(backend, service())
    before = records(reader, base)
    reader.delete(f"{base}.registrator", recursive=True)
    assert not reconcile(backend, service())
    assert records(reader, base) == before


def test_a_new_session_has_a_record_too(
    make: Backends, server: ZooKeeper, reader: KazooClient, base: str
) -> None:
    backend = make()
    reconcile(backend, service())
    former = backend._session.id
    thief = KazooClient(server.address, client_id=backend._session.connect().client_id)
    thief.start(60)
    thief.stop()
    thief.close()

    def replaced() -> bool:
        with contextlib.suppress(Unavailable, SessionLost):
            backend.list()
        return backend._session.id != former

    until(replaced, "a new session")
    assert look(backend) == {}
    assert {*records(reader, base).values()} == {backend._session.id}


# Siblings


def test_a_live_sibling_keeps_its_session_when_another_one_starts(
    make: Backends, reader: KazooClient, base: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The newcomer looks into its session, so it loses its connection, and opens another one."""
    woken = threading.Event()
    old, new = make(wake_soon=woken.set), make()
    reconcile(old, service(0), service(1))
    session = old._session.id
    # If the old one is back before the newcomer has asked, the newcomer knows that it lives.
    assert {actual.held for actual in new.list().values()} <= {False}
    assert woken.wait(60)
    assert look(old, service(0), service(1)).keys() == keys(old, service(0), service(1))
    settle(old, service(0), service(1), service(2))
    assert old._session.id == session
    assert {*records(reader, base).values()} == {session, new._session.id}
    lines = [line for line in caplog.messages if "the connection was closed" in line]
    assert caplog.messages == lines


def test_a_session_that_its_agent_takes_back_is_left(
    make: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make(), make()
    reconcile(old, service(0), service(1))

    def late(client: KazooClient, prefix: str) -> object:
        """Wait until the agent is back. Its connection ends that of the client."""
        until(lambda: not client.connected, "the end of the connection")
        answer = client.handler.async_result()
        answer.set_exception(ConnectionLoss())
        return answer

    monkeypatch.setattr(module, "ephemerals", late)
    assert new.list() == {}
    assert new._session.id != old._session.id
    assert look(old).keys() == keys(old, service(0), service(1))


def test_siblings_of_an_empty_session_keep_a_record(
    make: Backends, reader: KazooClient, base: str
) -> None:
    """A newcomer may take the record of an agent that has nothing. The next look mends that."""
    one = make()
    one.list()
    two = make()
    two.list()
    assert two._session.id in records(reader, base).values()
    look(one)
    assert {*records(reader, base).values()} == {one._session.id, two._session.id}


# Records that somebody else wrote


def test_garbage_in_the_place_of_records_harms_nothing(
    make: Backends, reader: KazooClient, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = []

    def resume(context: Context, settings: Settings, session: tuple[int, bytes]) -> Session:
        resumed.append(session[0])
        return Session(context, settings, session)

    monkeypatch.setattr(module, "Session", resume)
    first = make()
    reconcile(first, service(0), service(1, "old"))
    first.close()
    (mine,) = records(reader, base)
    prefix = mine.rpartition("-")[0]
    for slot, data in enumerate([b"", b"\xff" * 16, b"x" * 1_000_000, b"0" * 31, b"{}", b"0" * 32]):
        with contextlib.suppress(NodeExistsError):
            reader.create(f"{base}.registrator/{prefix}-{slot}", data)
    second = make()
    assert second.list().keys() == keys(first, service(0), service(1, "old"))
    assert second._session.id in records(reader, base).values()
    assert resumed == [first._session.id]


def test_all_places_taken_by_garbage_are_used_again(
    make: Backends, reader: KazooClient, base: str
) -> None:
    for _ in range(2):
        agent = make()
        reconcile(agent, service(0))
        agent.close()
    prefix = min(records(reader, base)).rpartition("-")[0]
    for slot in range(SLOTS):
        with contextlib.suppress(NodeExistsError):
            reader.create(f"{base}.registrator/{prefix}-{slot}", b"garbage")
    last = make()
    assert last.list().keys() == keys(last, service(0))
    assert last._session.id in records(reader, base).values()


@pytest.mark.parametrize("password", ["right", "wrong"])
def test_a_record_leads_to_no_session_but_that_of_its_maker(
    make: Backends, server: ZooKeeper, reader: KazooClient, base: str, password: str
) -> None:
    """Nothing of that session is touched, except what says that it is ours."""
    probe = make(options="?session-timeout=1.5")
    probe.list()
    (name,) = records(reader, base)
    probe.close()
    until(lambda: not records(reader, base), "the end of the record")
    with closing(make(path="/stranger", options="?session-timeout=60")) as agent:
        stranger = agent._session.connect()
        session, secret = stranger.client_id
        data = secret.hex() if password == "right" else "0" * 32
        folder = f"{base}.registrator"
        stranger.create(f"{folder}/{name}", data.encode(), ephemeral=True)
        ours = json.dumps({"Owner": "engine-1", "Host": "host"}).encode()
        theirs = json.dumps({"Owner": "engine-2", "Host": "other"}).encode()
        nodes = {"web/10.0.0.1:1": theirs, "web/10.0.0.1:2": b"x", "deep/er/10.0.0.1:1": ours}
        for path, content in {**nodes, "10.0.0.1:1": ours, "web/10.0.0.1:3": ours}.items():
            stranger.create(f"{base}/{path}", content, ephemeral=True, makepath=True)
    plan = reconcile(make())
    claimed = (f"{base}/web/10.0.0.1:3",)
    assert plan.deregister == (claimed if password == "right" else ())
    for path, content in nodes.items():
        data, stat = reader.get(f"{base}/{path}")
        assert (data, stat.ephemeralOwner) == (content, session)


def test_thousands_of_other_records_are_not_looked_at(
    make: Backends, server: ZooKeeper, proxy: TCPProxy, reader: KazooClient, base: str
) -> None:
    reader.ensure_path(f"{base}.registrator")
    costs = []
    for number in (0, 3000):
        made = [reader.create_async(f"{base}.registrator/{n}", b"x") for n in range(number)]
        for answer in made:
            answer.get()
        backend = make(address=proxy.address, owner=Identity(f"engine-{number:04}", "host"))
        costs.append(Meter(server, proxy).of(lambda: reconcile(backend, service())))  # noqa: B023
        reconcile(backend)
    assert costs[0][0] == costs[1][0]
    assert abs(costs[0][1] - costs[1][1]) < 500


# Fallbacks


def test_without_the_right_to_keep_a_record_a_start_reads_everything(
    make: Backends,
    server: ZooKeeper,
    reader: KazooClient,
    base: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader.ensure_path(base)
    reader.create(f"{base}.registrator", acl=[make_digest_acl("a", "b", all=True)])
    first = make()
    crowd(server, base, 3, 3)
    reconcile(first, service(0), service(1, "old"))
    first.close()
    caplog.clear()
    second = make()
    assert second.list().keys() == keys(second, service(0), service(1, "old")), "and no others"
    assert len(reconcile(second, service(0)).deregister) == 1
    for _ in range(3):
        assert not reconcile(second, service(0))
    (line,) = caplog.messages
    assert f"reads every node below {base} once at a start; {base}.registrator/" in line
    assert line.endswith(f"give this agent's user the right CREATE on {base}.registrator")


def test_a_start_that_reads_everything_and_fails_says_so_once(
    make: Backends, reader: KazooClient, base: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fails(*_: object) -> None:
        raise Unavailable("no answer")

    reader.ensure_path(base)
    reader.create(f"{base}.registrator", acl=[make_digest_acl("a", "b", all=True)])
    backend = make()
    with monkeypatch.context() as patch:
        patch.setattr("registrator.backends.zookeeper.backend.every_node", fails)
        for _ in range(3):
            with pytest.raises(Unavailable):
                backend.list()
    assert backend.list() == {}
    assert len(caplog.messages) == 1


def test_the_right_to_create_is_enough(
    make: Backends, reader: KazooClient, base: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader.ensure_path(base)
    reader.create(f"{base}.registrator", acl=[make_acl("world", "anyone", create=True)])
    for number in range(4):
        agent = make(options="?session-timeout=60")
        assert len(reconcile(agent, service(number)).deregister) == (number > 0)
        agent.close()
    assert not [line for line in caplog.messages if "reads every node" in line]


def test_only_a_start_reads_everything(
    make: Backends, server: ZooKeeper, proxy: TCPProxy, reader: KazooClient, base: str
) -> None:
    reader.ensure_path(base)
    reader.create(f"{base}.registrator", acl=[make_digest_acl("a", "b", all=True)])
    crowd(server, base, 10, 10)
    backend = make(address=proxy.address, options="?session-timeout=60")
    assert Meter(server, proxy).of(lambda: reconcile(backend, service(0)))[0] > 100
    assert Meter(server, proxy).of(lambda: reconcile(backend, service(0)))[0] == 3


def test_a_record_that_may_not_be_read_is_as_none(
    make: Backends, server: ZooKeeper, base: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent got another user. The nodes of the former one are world-readable here."""
    first = make(user="kim:secret@", options="?acl=world-read")
    reconcile(first, service(0, "old"))
    with client(server, "kim:secret") as kim:
        for path in (base, f"{base}.registrator"):
            kim.set_acls(path, OPEN_ACL_UNSAFE)
    first.close()
    second = make(user="tom:secret@")
    assert second.list().keys() == keys(second, service(0, "old"))
    (line,) = caplog.messages
    assert line.endswith("may not be read, as another user of ZooKeeper made it")
    with client(server, "tom:secret") as tom:
        names = [n for n in tom.get_children(f"{base}.registrator") if "-" in n]
    assert len(names) == 2, "it keeps a record of its own"


def test_records_are_their_users_alone(make: Backends, server: ZooKeeper, base: str) -> None:
    """Anybody with the password of a session can end it."""
    backend = make(user="kim:secret@", options="?acl=world-read")
    reconcile(backend, service())
    with client(server) as stranger:
        assert stranger.get(backend.entry(service()).key)
        (name,) = [n for n in stranger.get_children(f"{base}.registrator") if "-" in n]
        with pytest.raises(NoAuthError):
            stranger.get(f"{base}.registrator/{name}")


def test_beside_the_root_there_is_no_place_for_a_record(
    make: Backends, reader: KazooClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Readers of / would take it for a service."""
    first = make(path="/")
    reconcile(first, service(0, "root-old"))
    first.close()
    caplog.clear()
    second = make(path="/")
    assert second.list().keys() == keys(second, service(0, "root-old"))
    reconcile(second)
    assert not [name for name in reader.get_children("/") if name.endswith(".registrator")]
    (line,) = caplog.messages
    assert line.endswith("a record stands beside the base, and nothing stands beside /")


def test_a_server_before_3_6(
    make: Backends,
    server: ZooKeeper,
    reader: KazooClient,
    base: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with closing(BeforeVersion36(server.address)) as proxy:
        address = proxy.address
        first = make(address=address, options="?session-timeout=60")
        reconcile(first, service(0), service(1, "old"))
        first.close()
        caplog.clear()
        second = make(address=address, options="?session-timeout=60")
        assert second.list().keys() == keys(second, service(0), service(1, "old"))
        assert (proxy.asked, proxy.connections) == (2, 4)
        reconcile(second, service(0), service(2))
        session = second._session.id
        assert not reconcile(second, service(0), service(2))
        connected = second._session.connect()
        before = sum(map(len, connected._data_watchers.values()))
        for _ in range(5):
            second.list()
        assert sum(map(len, connected._data_watchers.values())) == before, "kazoo keeps each watch"
        reader.set(second.entry(service(0)).key, b"{}")
        reader.delete(second.entry(service(2)).key)
        assert len(reconcile(second, service(0), service(2)).register) == 2
        second.keepalive()
        assert (proxy.asked, second._session.id) == (2, session), "asked once, and no node went"
        assert len([line for line in caplog.messages if "older than ZooKeeper 3.6" in line]) == 1
        assert len(caplog.messages) == 1
        assert records(reader, base) == {}


def test_a_record_shows_no_password() -> None:
    slot = module.Slot("/base.registrator/x-0", 7, b"secret")
    assert "secret" not in repr(slot)
