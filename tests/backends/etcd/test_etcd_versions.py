"""Answers of other versions of etcd, given by a proxy in front of the one at hand."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.etcd import QUICK, Backends, ctl, guarding, running
from support.grpc_proxy import Answer, GRPCProxy
from support.servers import Etcd
from support.wait import until

from registrator.backend import Backend, Unavailable
from registrator.backends.etcd.rpc import Code
from registrator.model import Plan, Service

SERVICE = Service("host:web1:80", "web", "10.0.0.1", 8080, 80)
LEARNER = "etcdserver: rpc not supported for learner"
# etcd 3.4 and 3.5, and from 3.6 on.
LEARNER_CODES = (Code.UNAVAILABLE, Code.FAILED_PRECONDITION)
# All that a learner refuses and the agent uses. It answers Status.
LEARNER_METHODS = (
    "Range", "Txn", "LeaseGrant", "LeaseKeepAlive", "LeaseTimeToLive", "Watch", "Authenticate",
)  # fmt: skip


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


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Etcd]:
    with guarding(tmp_path) as etcd:
        yield etcd


def write(backend: Backend, name: str = "web") -> None:
    entry = backend.entry(Service(f"host:{name}:80", name, "10.0.0.1", 8080, 80))
    assert backend.apply(Plan((entry,))) == {}


def learn(proxy: GRPCProxy, code: Code) -> None:
    """Have the proxy answer as a learner does."""

    def refuse() -> None:
        raise Answer(code, LEARNER)

    proxy.before |= dict.fromkeys(LEARNER_METHODS, refuse)


def test_only_root_may_ask_for_the_version(
    proxy: GRPCProxy, make: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """etcd 3.5.28 to 3.5.31 and 3.6.0 to 3.6.11 answer so to every other user."""
    caplog.set_level(logging.INFO, "registrator.etcd")

    def deny() -> None:
        raise Answer(Code.PERMISSION_DENIED, "etcdserver: permission denied")

    proxy.before["Status"] = deny
    backend = make(f"etcd://{proxy.address}/version")
    write(backend)
    assert len(backend.list()) == 1
    (line,) = caplog.messages
    assert line.endswith(f"connected to {proxy.address}, etcd")


@pytest.mark.parametrize("code", LEARNER_CODES)
def test_a_learner_is_passed_over(
    proxy: GRPCProxy, server: Etcd, make: Backends, code: Code
) -> None:
    learn(proxy, code)
    backend = make(f"etcd://{proxy.address},{server.address}/first{code.name}", ttl=60)
    assert backend.list() == {}
    write(backend)
    backend.keepalive()
    assert len(backend.list()) == 1


@pytest.mark.parametrize("code", LEARNER_CODES)
def test_an_outage_does_not_leave_the_agent_at_a_learner(
    server: Etcd, make: Backends, code: Code
) -> None:
    with closing(GRPCProxy(server.address)) as voter, closing(GRPCProxy(server.address)) as proxy:
        learn(proxy, code)
        backend = make(f"etcd://{voter.address},{proxy.address}/captured{code.name}", ttl=60)
        write(backend)

        def fail() -> None:
            raise Answer(Code.UNAVAILABLE, "etcdserver: no leader")

        voter.before |= dict.fromkeys(LEARNER_METHODS, fail)
        for call in (backend.list, lambda: write(backend, "during"), backend.keepalive):
            with pytest.raises(Unavailable, match="learner"):
                call()
        voter.before.clear()
        write(backend, "after")
        backend.keepalive()
        assert len(backend.list()) == 2


@pytest.mark.parametrize("code", LEARNER_CODES)
def test_a_login_goes_on_past_a_learner(make: Backends, guarded: Etcd, code: Code) -> None:
    with closing(GRPCProxy(guarded.address)) as proxy:
        learn(proxy, code)
        backend = make(f"etcd://agent:s3cret@{proxy.address},{guarded.address}/s")
        write(backend)
        assert len(backend.list()) == 1


def test_a_real_learner(tmp_path: Path, make: Backends) -> None:
    with running(tmp_path / "voter") as voter:
        learner = Etcd(tmp_path / "learner", name="learner", flags=QUICK)
        ctl(voter, "member", "add", "learner", "--learner", f"--peer-urls={learner.peer_url}")
        learner.peers = {**voter.peers, **learner.peers}
        learner.flags.append("--initial-cluster-state=existing")
        try:
            learner.launch()
            until(lambda: accepts(learner), "the learner's port")
            backend = make(f"etcd://{learner.address},{voter.address}/learner", ttl=60)
            write(backend)
            backend.keepalive()
            assert len(backend.list()) == 1
        finally:
            learner.remove()


def accepts(etcd: Etcd) -> bool:
    """Whether a server takes connections. A learner calls itself unhealthy."""
    host, _, port = etcd.address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False
