"""The ZooKeeper backend over an ensemble of three: members killed and frozen, siblings, TLS."""

from __future__ import annotations

import logging
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from support.certificates import Authority
from support.servers import ZooKeeper, zookeeper_cluster
from support.wait import until
from support.zookeeper import Watcher, client, holders, mode, wait_whole

from registrator.backend import BackendError, ConfigError, Context, Unavailable
from registrator.backends.zookeeper.backend import ZooKeeperBackend
from registrator.backends.zookeeper.session import Session
from registrator.model import Identity, Plan, Service, Snapshot
from registrator.status.report import RegistryReport
from registrator.sync.reconciler import Reconciler
from registrator.uri import parse

OWNER = Identity("engine-1", "host")
ADDRESS = "10.0.0.1"


def service(number: int) -> Service:
    name = f"c{number}"
    return Service(f"host:{name}:80", "web", ADDRESS, 1000 + number, 80, container_name=name)


def snapshot(size: int) -> Snapshot:
    services = {one.id: one for one in map(service, range(size))}
    return Snapshot(services, frozenset({ADDRESS}))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ZooKeeper]]:
    members = zookeeper_cluster(tmp_path_factory.mktemp("ensemble"), lines=["syncLimit=4"])
    yield members
    for member in members:
        member.kill()


@pytest.fixture
def members(cluster: list[ZooKeeper]) -> Iterator[list[ZooKeeper]]:
    """The ensemble, whole again after each test."""
    yield cluster
    for member in cluster:
        if member.running:
            member.thaw()
        else:
            member.launch()
    wait_whole(cluster)


def of(members: Sequence[ZooKeeper], role: str) -> ZooKeeper:
    return next(member for member in members if mode(member) == role)


def make(
    members: Sequence[ZooKeeper], base: str, seconds: int = 60, **context: Callable[[], None]
) -> ZooKeeperBackend:
    """By default a session that a busy machine keeps alive."""
    hosts = ",".join(member.address for member in members)
    uri = parse(f"zookeeper://{hosts}{base}?session-timeout={seconds}")
    return ZooKeeperBackend(Context(uri, OWNER, **context))  # type: ignore[arg-type]


def served_by(session: Session) -> str:
    """The address of the member that serves it now. Empty while none does."""
    assert session._open is not None
    _, sockets, live = session._open
    return sockets.address if live.is_set() else ""


def move(session: Session, member: ZooKeeper) -> None:
    """Cut its connections until it has one to this member."""

    def there() -> bool:
        if served_by(session) == member.address:
            return True
        assert session._open is not None
        session._open[1].cut()
        return False

    until(there, "a connection to that member", ignore=(OSError,))


class Agent:
    """A reconciler on its thread, as the agent runs it."""

    def __init__(self, members: Sequence[ZooKeeper], base: str, size: int, seconds: int) -> None:
        def connect(wake: Callable[[], None], wake_soon: Callable[[], None]) -> ZooKeeperBackend:
            self.backend = make(members, base, seconds, wake=wake, wake_soon=wake_soon)
            return self.backend

        self._reconciler = Reconciler(RegistryReport("zookeeper"), connect, OWNER)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._reconciler.run, args=(self._stop,))
        services = {one.id: one for one in map(service, range(size))}
        self._reconciler.publish(Snapshot(services, frozenset({ADDRESS})))
        self._thread.start()

    @property
    def session(self) -> Session:
        return self.backend._session

    def die(self) -> None:
        """Go as after a SIGKILL: the session is not ended."""
        self._stop.set()
        self._reconciler.retry_now()
        self._thread.join(60)
        assert not self._thread.is_alive()


@contextmanager
def agents(
    bound: Sequence[Sequence[ZooKeeper]], base: str, size: int, seconds: int
) -> Iterator[list[Agent]]:
    """Agents of one host, each over these members. They run until the block ends."""
    running = [Agent(members, base, size, seconds) for members in bound]
    try:
        yield running
    finally:
        for agent in running:
            agent.die()


def holder(reader: KazooClient, base: str, size: int, among: Sequence[Agent]) -> Agent | None:
    """The one that holds all nodes."""
    held = holders(reader, f"{base}/web")
    owns = [agent for agent in among if {agent.session.id} == set(held.values())]
    return owns[0] if len(held) == size and owns else None


def write(backend: ZooKeeperBackend, number: int) -> None:
    """Write as the reconciler does: again and again until the registry takes it."""
    plan = Plan((backend.entry(service(number)),))

    def written() -> bool:
        return not backend.apply(plan)

    until(written, "a write", ignore=(BackendError,))


@pytest.mark.parametrize("fault", [ZooKeeper.kill, ZooKeeper.freeze])
@pytest.mark.parametrize("role", ["follower", "leader"])
def test_another_member_serves(
    members: list[ZooKeeper],
    role: str,
    fault: Callable[[ZooKeeper], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "registrator.zookeeper")
    backend = make(members, f"/{role}{fault.__name__}")
    try:
        for number in range(10):
            write(backend, number)
        member = of(members, role)
        move(backend._session, member)
        until(backend._session.connect, "the member", ignore=(Unavailable,))
        session = backend._session.id
        caplog.clear()
        fault(member)
        write(backend, 10)
        found = until(backend.list, "a listing", ignore=(Unavailable,))
        assert len(found) == 11, "no node went"
        moves = [line for line in caplog.messages if ": moved to " in line]
        assert member.address in moves[0].partition(" (")[2], "why it moved"
        assert backend._session.id == session, "the session moved, and its nodes with it"
        assert all(actual.held for actual in found.values())
    finally:
        backend.close()


@pytest.mark.parametrize("fault", [ZooKeeper.kill, ZooKeeper.freeze])
def test_nothing_is_missing_while_a_member_is_gone(
    members: list[ZooKeeper], fault: Callable[[ZooKeeper], object]
) -> None:
    """Nothing is written meanwhile: the keepalive finds out, within the session timeout."""
    base = f"/gone-{fault.__name__}"
    leader, follower = of(members, "leader"), of(members, "follower")
    with client(leader) as reader, agents([members], base, 20, 20) as running:
        until(lambda: holder(reader, base, 20, running), "all nodes")
        move(running[0].session, follower)
        session = running[0].session.id
        with Watcher(leader, f"{base}/web", 20) as watcher:
            fault(follower)
            until(
                lambda: served_by(running[0].session) not in ("", follower.address),
                "another member",
            )
            watcher.look_again()
        assert watcher.gap == 0
        assert set(holders(reader, f"{base}/web").values()) == {session}


@pytest.mark.parametrize("fault", ["agent", "member"])
def test_three_agents_on_three_members(members: list[ZooKeeper], fault: str) -> None:
    """The agent that holds the nodes dies, or its member: another one puts them back."""
    base = f"/three-{fault}"
    bound = [[member] for member in members]
    with agents(bound, base, 50, 4) as running, client(members[0]) as reader:
        first = until(lambda: holder(reader, base, 50, running), "all nodes held by one")
        others = [agent for agent in running if agent is not first]
        number = running.index(first)
        if fault == "agent":
            first.die()
        else:
            members[number].kill()
        with client(members[number - 1]) as witness:
            until(lambda: holder(witness, base, 50, others), "another holder")


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[ZooKeeper]:
    server = ZooKeeper(tmp_path_factory.mktemp("secure"), authority=authority)
    server.start()
    yield server
    server.kill()


def tls(where: str, base: str = "/tls", **environ: object) -> ZooKeeperBackend:
    files = {f"ZOOKEEPER_{name.upper()}": str(path) for name, path in environ.items()}
    return ZooKeeperBackend(Context(parse(f"zookeeper-tls://{where}{base}"), OWNER, environ=files))


def test_tls_with_a_certificate_of_our_own(secure: ZooKeeper, authority: Authority) -> None:
    cert, key = authority.issue("agent")
    backend = tls(secure.tls_address, cacert=authority.ca, cert=cert, key=key)
    try:
        entries = tuple(backend.entry(service(n)) for n in range(1000))
        assert backend.apply(Plan(entries)) == {}
        assert sum(actual.held for actual in backend.list().values()) == 1000
    finally:
        backend.close()


class TLSProxy:
    """Ends TLS before a server without it, as stunnel does: it puts many answers in one record."""

    def __init__(self, server: ZooKeeper, authority: Authority) -> None:
        cert, key = authority.issue("proxy", server.ip)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(cert, key)
        self._server = server
        self._listener = socket.create_server((server.ip, 0))
        self.address = f"{server.ip}:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._relay)

    def _relay(self) -> None:
        host, port = self._server.address.split(":")
        plain, _ = self._listener.accept()
        with (
            self._context.wrap_socket(plain, server_side=True) as outside,
            socket.create_connection((host, int(port))) as inside,
        ):
            while True:
                if not outside.pending():
                    select.select([outside, inside], [], [])
                outside.setblocking(False)
                with suppress(ssl.SSLWantReadError):
                    if not (data := outside.recv(16384)):
                        return
                    inside.sendall(data)
                outside.setblocking(True)
                if select.select([inside], [], [], 0)[0]:
                    # Time for more answers to come in.
                    time.sleep(0.01)
                    outside.sendall(inside.recv(16384))

    def __enter__(self) -> TLSProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join(60)


def test_answers_that_share_a_tls_record_are_read_at_once(
    secure: ZooKeeper, authority: Authority
) -> None:
    with TLSProxy(secure, authority) as proxy:
        backend = tls(proxy.address, "/proxied", cacert=authority.ca)
        try:
            backend.apply(Plan(tuple(backend.entry(service(n)) for n in range(100))))
            # An answer that is left in the buffer would be missed for longer than `list` waits.
            assert len(backend.list()) == 100
        finally:
            backend.close()


def test_tls_without_a_certificate_is_refused(secure: ZooKeeper, authority: Authority) -> None:
    backend = tls(secure.tls_address, cacert=authority.ca)
    with pytest.raises(Unavailable, match=re.escape(secure.tls_address)):
        backend.list()
    backend.close()


def test_the_servers_certificate_and_name_are_verified(
    secure: ZooKeeper, authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue("agent")
    other = Authority(tmp_path / "other")
    backend = tls(secure.tls_address, cacert=other.ca, cert=cert, key=key)
    with pytest.raises(Unavailable, match="certificate is not accepted"):
        backend.list()
    backend.close()


def test_a_key_that_does_not_fit_is_found_at_start(authority: Authority) -> None:
    (cert, _), (_, key) = authority.issue("one"), authority.issue("two")
    with pytest.raises(ConfigError, match="ZOOKEEPER_KEY"):
        tls("127.0.0.1:1", cacert=authority.ca, cert=cert, key=key)
