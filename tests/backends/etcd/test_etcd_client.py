"""The connection to etcd: failover on a real cluster, deadlines, logins, TLS, names."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.certificates import Authority
from support.etcd import Backends, ctl, guarding, keys, leads, lease_of, requests, running
from support.names import Mute, resolve_as
from support.require import require
from support.servers import Etcd, etcd_cluster, free_ports, loopback_ip
from support.wait import until

from registrator.backend import Backend, BackendError, SessionLost, Unavailable
from registrator.model import Plan, Service

SERVICE = Service("host:web1:80", "web", "10.0.0.1", 8080, 80)
T = TypeVar("T")
DEAD = f"{loopback_ip()}:9"


@pytest.fixture
def make() -> Iterator[Backends]:
    with closing(Backends()) as backends:
        yield backends


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Etcd]]:
    members = etcd_cluster(tmp_path_factory.mktemp("cluster"))
    yield members
    for member in members:
        member.remove()


def write(backend: Backend, *ids: str) -> None:
    wanted = (Service(each, "web", "10.0.0.1", 8080, 80) for each in ids or [SERVICE.id])
    assert backend.apply(Plan(tuple(map(backend.entry, wanted)))) == {}


def fails(call: Callable[[], Any], match: str = ":") -> None:
    """Hold a call to an end, and to its reason."""
    with pytest.raises(Unavailable, match=match):
        call()


def patiently(call: Callable[[], T]) -> T:
    """The answer to a call that is tried as often as the reconciler tries."""
    return until(lambda: (call(),), "an answer", ignore=(Unavailable,))[0]


def persist(backend: Backend, name: str) -> None:
    """Write until the registry takes it."""
    patiently(lambda: write(backend, name))


@pytest.mark.parametrize("connected", ["to the victim", "to another"])
@pytest.mark.parametrize("fault", ["kill", "freeze"])
@pytest.mark.parametrize("role", ["follower", "leader"])
def test_another_member_takes_the_next_write(
    cluster: list[Etcd], make: Backends, role: str, fault: str, connected: str
) -> None:
    until(lambda: sum(map(leads, cluster)) == 1, "one leader")
    victim = next(member for member in cluster if leads(member) is (role == "leader"))
    order = sorted(cluster, key=lambda m: (m is victim) is (connected != "to the victim"))
    uri = f"etcd://{','.join(member.address for member in order)}/{role}{fault}"
    backend = make(uri, ttl=300, timeout=2)
    persist(backend, "before")
    try:
        victim.kill() if fault == "kill" else victim.freeze()
        persist(backend, "during")
        patiently(backend.keepalive)
        assert len(patiently(backend.list)) == 2
    finally:
        victim.start() if fault == "kill" else victim.thaw()
        victim.wait_ready()
    assert {found.held for found in patiently(backend.list).values()} == {True}


def test_a_cluster_without_a_quorum(cluster: list[Etcd], make: Backends) -> None:
    uri = f"etcd://{','.join(member.address for member in cluster)}/quorum"
    backend = make(uri, timeout=0.5)
    persist(backend, "a")
    for member in cluster[:2]:
        member.kill()
    try:
        fails(lambda: write(backend, "b"))
        fails(backend.list)
    finally:
        for member in cluster[:2]:
            member.launch()
        for member in cluster:
            member.wait_ready()
    persist(backend, "b")
    assert len(patiently(backend.list)) == 2


def test_every_call_ends_at_a_frozen_server(tmp_path: Path, make: Backends) -> None:
    with running(tmp_path) as etcd:
        uri = f"etcd://{etcd.address}/s"
        backend, unconnected = make(uri, ttl=60, timeout=0.5), make(uri, timeout=0.5)
        persist(backend, "a")
        etcd.freeze()
        for each in (backend, unconnected):
            for call in (each.list, lambda each=each: write(each, "b"), backend.keepalive):
                fails(call, "no answer within 0.5 s")
        etcd.thaw()
        persist(backend, "b")
        assert len(patiently(backend.list)) == 2


def test_stays_with_what_works(
    server: Etcd, make: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "registrator.etcd")
    backend = make(f"etcd://{DEAD},{server.address},127.0.0.1:9/stays")
    write(backend)
    assert len(backend.list()) == 1
    (line,) = caplog.messages
    assert f"connected to {server.address}" in line


def test_all_addresses_are_tried(make: Backends) -> None:
    backend = make(f"etcd://{DEAD},127.0.0.1:9/s")
    fails(backend.list, rf"{DEAD}: .*refused.*; 127\.0\.0\.1:9: .*refused")


def test_a_server_that_comes_back(
    tmp_path: Path, make: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path) as etcd:
        backend = make(f"etcd://{etcd.address}/s")
        write(backend)
        etcd.kill()
        for _ in range(3):
            fails(backend.list, "refused|reset|closed|Broken pipe")
        etcd.start()
        backend.list()
    assert caplog.messages == []  # who called was told of the fault, and will say when it is over


def test_a_connection_that_ends_has_the_entries_listed(tmp_path: Path, make: Backends) -> None:
    """In a moment that the reconciler draws: nothing is known to be missing."""
    woken: list[str] = []
    with running(tmp_path) as etcd:
        backend = make(
            f"etcd://{etcd.address}/s",
            wake=lambda: woken.append("at once"), wake_soon=lambda: woken.append("soon"),
        )  # fmt: skip
        write(backend)
        backend.list()
        assert woken == []
        for _ in range(2):
            woken.clear()
            etcd.kill()
            until(lambda: woken, "being woken")
            assert woken == ["soon"]
            etcd.wipe()
            etcd.start()
            assert backend.list() == {}
            with pytest.raises(SessionLost):
                write(backend)
            write(backend)
        backend.close()
        assert len(woken) == 1
        assert len(backend.list()) == 1


def test_no_thread_outlives_a_connection(server: Etcd, make: Backends) -> None:
    before = threading.active_count()
    backend = make(f"etcd://{server.address}/threads", ttl=60)
    for _ in range(3):
        write(backend)
        backend.keepalive()
        backend.close()
    until(lambda: threading.active_count() <= before, "the threads' end")


def test_a_name_is_all_of_its_addresses(
    server: Etcd, make: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server.address.rpartition(":")[2]
    backend = make(f"etcd://etcd.test:{port}/names")
    resolve_as(monkeypatch, "etcd.test", lambda: ("127.0.0.2", "127.0.0.3"))
    fails(backend.list, r"127\.0\.0\.2:\d+: .*; 127\.0\.0\.3:\d+: ")
    resolve_as(monkeypatch, "etcd.test", lambda: ("127.0.0.2", server.ip))
    write(backend)


def test_names_that_do_not_resolve(make: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(make("etcd://no.such.host.invalid/s").list, "no.such.host.invalid")
    with closing(Mute()) as mute:
        resolve_as(monkeypatch, "etcd.test", mute)
        backend = make("etcd://etcd.test/s", timeout=0.3)
        fails(backend.list, "not resolved within 0.3 s")
    until(lambda: "resolve" not in {t.name for t in threading.enumerate()}, "its thread's end")


def test_ipv6(tmp_path: Path, make: Backends) -> None:
    enabled = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
    require("IPv6", enabled.exists() and enabled.read_text() == "0\n", "net.ipv6.conf.lo")
    port = free_ports("127.0.0.1", 1)[0]
    client = f"http://[::1]:{port}"
    with running(tmp_path) as etcd:
        etcd.kill()
        etcd.flags.append(f"--listen-client-urls={client},http://{etcd.address}")
        etcd.start()
        backend = make(f"etcd://[::1]:{port}/six")
        write(backend)
        assert len(keys(etcd, "/six")) == 1


def test_proxies_are_not_asked(
    server: Etcd, make: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://{DEAD}")
    write(make(f"etcd://{server.address}/proxy"))


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Etcd]:
    with guarding(tmp_path) as etcd:
        yield etcd


def test_user_and_password(guarded: Etcd, make: Backends, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    both = tmp_path / "both"
    both.write_text("agent:s3cret\n")
    plain = f"etcd://{guarded.address}/s"
    for number, (uri, environ) in enumerate(
        (
            (f"etcd://agent:s3cret@{guarded.address}/s", {}),
            (f"etcd://agent@{guarded.address}/s", {"ETCDCTL_PASSWORD": "s3cret"}),
            (plain, {"ETCDCTL_USER": "agent:s3cret"}),
            (plain, {"ETCDCTL_USER": "agent", "ETCDCTL_PASSWORD": "s3cret"}),
            (plain, {"ETCDCTL_USER": "agent", "ETCDCTL_PASSWORD_FILE": str(secret)}),
            (plain, {"ETCDCTL_USER_FILE": str(both)}),
        )
    ):
        backend = make(uri, environ=environ, ttl=60)
        write(backend, str(number))
        backend.keepalive()
        assert len(backend.list()) == number + 1


def test_the_least_rights(guarded: Etcd, make: Backends) -> None:
    """The role of docs/registries/etcd.md is enough for all, and less is not."""
    uri = f"etcd://agent:s3cret@{guarded.address}/s"
    backend = make(uri, ttl=6)
    write(backend, "a", "b")
    entries = [backend.entry(Service(name, "web", "10.0.0.1", 8080, 80)) for name in "ab"]
    assert backend.apply(Plan((entries[0],), (entries[1].key,))) == {}
    backend.keepalive()
    lease = lease_of(guarded, entries[0].key, user="root:r00t")
    again = make(uri, ttl=6)
    assert [found.held for found in again.list().values()] == [True]
    again.close()
    before = requests(guarded, "LeaseKeepAlive")
    # The keeper logs in by itself.
    until(lambda: requests(guarded, "LeaseKeepAlive") >= before + 3, "three keep-alives")
    assert lease_of(guarded, entries[0].key, user="root:r00t") == lease
    for less in ("read", "write"):
        role = ("role", "grant-permission", "agent", less, "--prefix=true", "/s/")
        ctl(guarded, *role, user="root:r00t")
        call = backend.list if less == "write" else lambda: write(backend, "c")
        fails(call, "permission denied; the user needs a role")


def test_an_expired_token(guarded: Etcd, make: Backends) -> None:
    backend = make(f"etcd://agent:s3cret@{guarded.address}/s")
    write(backend)

    def logins() -> int:
        before = requests(guarded, "Authenticate")
        assert len(backend.list()) == 1
        return requests(guarded, "Authenticate") - before

    # A token lasts for a second, and a busy machine may take longer.
    until(lambda: logins() == 0, "a listing with the token of an earlier call")
    before = requests(guarded, "Authenticate")
    # Each look makes the token last longer, so each waits longer for the server to forget it.
    for pause in (3.5, 7, 14, 28):
        time.sleep(pause)
        assert len(backend.list()) == 1
        if requests(guarded, "Authenticate") > before:
            break
    assert requests(guarded, "Authenticate") == before + 1


def test_a_changed_password(guarded: Etcd, make: Backends, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret")
    environ = {"ETCDCTL_USER": "agent", "ETCDCTL_PASSWORD_FILE": str(secret)}
    backend = make(f"etcd://{guarded.address}/s", environ=environ)
    write(backend)
    change = ("user", "passwd", "agent", "--interactive=false")
    ctl(guarded, *change, user="root:r00t", stdin="second")
    fails(backend.list, "refuses user 'agent'")
    secret.write_text("second")
    assert len(backend.list()) == 1
    ctl(guarded, *change, user="root:r00t", stdin="third")
    secret.unlink()
    fails(backend.list, "ETCDCTL_PASSWORD_FILE .* cannot be read")


def test_authentication_switched_on_and_off(guarded: Etcd, make: Backends) -> None:
    ctl(guarded, "auth", "disable", user="root:r00t")
    backend = make(f"etcd://agent:s3cret@{guarded.address}/s")
    write(backend)
    ctl(guarded, "auth", "enable")
    write(backend, "b")
    ctl(guarded, "auth", "disable", user="root:r00t")
    write(backend, "c")
    assert len(backend.list()) == 3


def test_what_is_not_allowed(
    guarded: Etcd, make: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for uri, text in (
        (f"etcd://{guarded.address}/s", "user name is empty"),
        (f"etcd://agent:wr0ng@{guarded.address}/s", "refuses user 'agent': .*authentication"),
        (f"etcd://agent:s3cret@{guarded.address}/elsewhere", "permission denied"),
    ):
        backend = make(uri)
        for call in (backend.list, lambda backend=backend: write(backend)):
            with pytest.raises(BackendError, match=text) as caught:
                call()
            assert not re.search("s3cret|wr0ng", str(caught.value) + caplog.text)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Etcd]:
    with running(tmp_path_factory.mktemp("secure"), authority=authority) as etcd:
        yield etcd


@pytest.fixture
def environ(authority: Authority) -> dict[str, str]:
    cert, key = authority.issue("client")
    return {
        "ETCDCTL_CACERT": str(authority.ca),
        "ETCDCTL_CERT": str(cert),
        "ETCDCTL_KEY": str(key),
    }


def test_tls(
    secure: Etcd, make: Backends, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = secure.tls_address.rpartition(":")[2]
    write(make(f"etcd-tls://{secure.tls_address}/tls", environ=environ))
    for name in ("localhost", "etcd.test"):
        resolve_as(monkeypatch, name, lambda: (secure.ip,))
    backend = make(f"etcd-tls://localhost:{port}/tls", environ=environ)
    assert len(backend.list()) == 1
    fails(make(f"etcd-tls://etcd.test:{port}/tls", environ=environ).list)


def test_tls_refused(secure: Etcd, make: Backends, environ: dict[str, str], tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    cert, key = stranger.issue("stranger")
    uri = f"etcd-tls://{secure.tls_address}/tls"
    for wrong in (
        {**environ, "ETCDCTL_CACERT": str(stranger.ca)},
        {**environ, "ETCDCTL_CERT": str(cert), "ETCDCTL_KEY": str(key)},
        {"ETCDCTL_CACERT": environ["ETCDCTL_CACERT"]},
    ):
        fails(make(uri, environ=wrong).list)
    fails(make(uri.replace("-tls", ""), environ=environ).list)
    Path(environ["ETCDCTL_KEY"]).unlink()
    backend = make(f"etcd://{secure.address}/tls")
    backend.list()


def test_certificates_are_read_again(secure: Etcd, make: Backends, environ: dict[str, str]) -> None:
    backend = make(f"etcd-tls://{secure.tls_address}/tls", environ=environ)
    key = Path(environ["ETCDCTL_KEY"])
    content = key.read_bytes()
    key.unlink()
    fails(backend.list, "ETCDCTL_KEY .*: No such file")
    key.write_bytes(content)
    backend.list()
