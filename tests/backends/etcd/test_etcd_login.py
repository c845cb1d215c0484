"""The login to etcd: a token serves every connection for as long as servers accept it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from support.etcd import Backends, applied, ctl, guard, guarding, requests
from support.proxy import TCPProxy
from support.servers import Etcd, etcd_cluster
from support.wait import until

from registrator.backend import Backend, SessionLost, Unavailable
from registrator.model import Plan, Service

USER = "agent:s3cret@"
LONG = "--auth-token-ttl=3600"


@pytest.fixture
def make() -> Iterator[Backends]:
    with closing(Backends()) as backends:
        yield backends


def jwt(folder: Path) -> str:
    """The flag for tokens that carry a signature, and last for ten minutes."""
    key = folder / "key"
    key.write_text("k3y" * 20)
    return f"--auth-token=jwt,priv-key={key},sign-method=HS256,ttl=10m"


def write(backend: Backend, name: str = "web1") -> None:
    entry = backend.entry(Service(f"host:{name}:80", "web", "10.0.0.1", 8080, 80))
    ignore = (Unavailable, SessionLost)
    until(lambda: backend.apply(Plan((entry,))) == {}, "a write", ignore=ignore)


def listed(backend: Backend) -> int:
    return until(lambda: (len(backend.list()),), "a listing", ignore=(Unavailable,))[0]


def logins(*members: Etcd) -> int:
    return sum(requests(member, "Authenticate") for member in members)


def cut(proxy: TCPProxy, backend: Backend) -> None:
    """End the connection, and have the backend make a new one."""
    before = proxy.connections
    proxy.cut()
    until(lambda: listed(backend) == 1 and proxy.connections > before, "a new connection")


def test_one_login_serves_all_connections(
    tmp_path: Path, make: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "registrator.etcd")
    with guarding(tmp_path, LONG) as etcd, closing(TCPProxy(etcd.address)) as proxy:
        backend = make(f"etcd://{USER}{proxy.address}/s")
        before = logins(etcd)
        write(backend)
        assert logins(etcd) == before + 1
        for _ in range(3):
            cut(proxy, backend)
        assert logins(etcd) == before + 1
    # gRPC may connect again by itself, before a call fails.
    assert "connected to" in caplog.messages[0]


def test_the_connection_that_keeps_the_lease_alive_needs_no_login_of_its_own(
    tmp_path: Path, make: Backends
) -> None:
    with guarding(tmp_path, LONG) as etcd:
        backend = make(f"etcd://{USER}{etcd.address}/s", ttl=3)
        before = logins(etcd)
        write(backend)
        renewals = requests(etcd, "LeaseKeepAlive")
        until(lambda: requests(etcd, "LeaseKeepAlive") >= renewals + 3, "three keep-alives")
        assert logins(etcd) == before + 1


@pytest.mark.parametrize(
    ("flag", "more"), [(lambda _: LONG, 1), (jwt, 0)], ids=["simple token", "JWT"]
)
def test_a_token_that_a_member_forgot_in_its_restart_is_renewed(
    tmp_path: Path, make: Backends, flag: Callable[[Path], str], more: int
) -> None:
    # A member reads its log again when it starts, and with that the logins since its last snapshot.
    with guarding(tmp_path, flag(tmp_path), "--snapshot-count=1") as etcd:
        backend = make(f"etcd://{USER}{etcd.address}/s")
        for name in ("web1", "web2", "web3"):
            write(backend, name)
        etcd.kill()
        etcd.start()
        assert logins(etcd) == 0
        assert listed(backend) == 3
        write(backend, "web4")
        assert listed(backend) == 4
        assert logins(etcd) == more


def test_every_member_knows_the_token(tmp_path: Path, make: Backends) -> None:
    flags = (LONG, "--bcrypt-cost=4")
    with ExitStack() as stack:
        members = etcd_cluster(tmp_path, flags=flags)
        for member in members:
            stack.callback(member.remove)
        guard(members[0])
        backend = make(
            f"etcd://{USER}{','.join(member.address for member in members)}/s", timeout=30
        )
        write(backend)
        before = logins(*members[1:])
        # A member that lags behind does not know the token yet.
        until(lambda: len({applied(member) for member in members}) == 1, "all are at one place")
        members[0].kill()
        assert listed(backend) == 1
        write(backend, "web2")
        assert logins(*members[1:]) == before


def test_a_wiped_cluster_does_not_wait_for_the_place_in_the_log_that_a_token_names(
    tmp_path: Path, make: Backends
) -> None:
    """Until its log is as long as the former one, it answers no call with the former token."""
    with guarding(tmp_path, LONG) as etcd:
        for number in range(50):
            ctl(etcd, "put", "/s/x", str(number), user="root:r00t")
        backend = make(f"etcd://{USER}{etcd.address}/s", timeout=1)
        write(backend)
        etcd.kill()
        etcd.wipe()
        etcd.start()
        guard(etcd)
        assert listed(backend) == 0
        write(backend)
        assert listed(backend) == 1
