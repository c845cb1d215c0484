"""The servers, each started when the first test needs it, and the fixture `registry`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import pytest
from support.certificates import Authority
from support.etcd import QUICK
from support.servers import Consul, Etcd, Server, ZooKeeper, program

from contract.consul import TELEMETRY, ConsulAgent, ConsulKV
from contract.etcd import AGENT, InEtcd, ask_for_passwords
from contract.local import InFile, InMemory
from contract.registry import Registry
from contract.zookeeper import InZooKeeper


class Servers:
    """A real server of each kind, with TLS at a second port. A second etcd has passwords."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "authority", identifiers=False)
        self._files = (self.authority.ca, *self.authority.issue("agent"))
        self._running: list[Server] = []

    def environ(self, *names: str) -> Mapping[str, str]:
        """The variables that name the authority, the certificate and its key."""
        return dict(zip(names, map(str, self._files), strict=True))

    def stop(self) -> None:
        for server in self._running:
            server.remove()

    def _start(self, server: Server) -> None:
        self._running.append(server)
        server.start()

    @cached_property
    def consul(self) -> Consul:
        made = Consul(self.folder / "consul", authority=self.authority, config=TELEMETRY)
        made.config["addresses"] = {"http": f"{made.ip} unix://{made.folder}/sock"}
        self._start(made)
        return made

    @cached_property
    def etcd(self) -> Etcd:
        return self._etcd("etcd")

    @cached_property
    def guarded_etcd(self) -> Etcd:
        made = self._etcd("guarded-etcd", "--bcrypt-cost=4")
        ask_for_passwords(made)
        return made

    def _etcd(self, name: str, *flags: str) -> Etcd:
        program("etcdctl", package="etcd-client")
        flags = (*QUICK, *flags)
        made = Etcd(self.folder / name, flags=flags, authority=self.authority, name=name)
        self._start(made)
        return made

    @cached_property
    def zookeeper(self) -> ZooKeeper:
        made = ZooKeeper(self.folder / "zookeeper", authority=self.authority)
        self._start(made)
        return made


CONSUL = ("CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY")
ETCD = ("ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY")
ZOOKEEPER = ("ZOOKEEPER_CACERT", "ZOOKEEPER_CERT", "ZOOKEEPER_KEY")

Make = Callable[[Servers, Path], Registry]


def _agent(suffix: str = "") -> Make:
    return lambda s, _: ConsulAgent(s.consul, s.environ(*CONSUL), suffix)


def _kv(suffix: str = "", option: str = "") -> Make:
    return lambda s, _: ConsulKV(s.consul, s.environ(*CONSUL), suffix, option)


def _etcd(scheme: str = "etcd", option: str = "") -> Make:
    return lambda s, _: InEtcd(s.etcd, s.environ(*ETCD), scheme, option=option)


def _guarded(scheme: str) -> Make:
    return lambda s, _: InEtcd(s.guarded_etcd, s.environ(*ETCD), scheme, user=AGENT)


def _zookeeper(scheme: str = "zookeeper", user: str = "") -> Make:
    return lambda s, _: InZooKeeper(s.zookeeper, s.environ(*ZOOKEEPER), scheme, user)


KINDS: Mapping[str, Make] = {
    "fake": lambda *_: InMemory(),
    "file": lambda _, folder: InFile(folder),
    "consul": _agent(),
    "consul-tls": _agent("-tls"),
    "consul-unix": _agent("-unix"),
    "consulkv": _kv(),
    "consulkv-json": _kv(option="?value=json"),
    "consulkv-tls": _kv("-tls"),
    "consulkv-unix": _kv("-unix"),
    "etcd": _etcd(),
    "etcd-json": _etcd(option="?value=json"),
    "etcd-tls": _etcd("etcd-tls"),
    "etcd-user": _guarded("etcd"),
    "etcd-tls-user": _guarded("etcd-tls"),
    "skydns2": _etcd("skydns2"),
    "skydns2-tls": _etcd("skydns2-tls"),
    "zookeeper": _zookeeper(),
    "zookeeper-acl": _zookeeper(user="kim:pass%3Aword@"),
    "zookeeper-tls": _zookeeper("zookeeper-tls"),
    "zookeeper-tls-acl": _zookeeper("zookeeper-tls", user="kim:pass%3Aword@"),
}


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    made = Servers(tmp_path_factory.mktemp("servers"))
    yield made
    made.stop()


@pytest.fixture
def registry(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Registry]:
    """A registry of the kind that the test is parametrized with, and an empty place in it."""
    made = KINDS[request.param](servers, tmp_path)
    yield made
    made.close()
