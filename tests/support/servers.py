"""Consul, etcd and ZooKeeper: real servers, single or as clusters, to start, break and mend.

Each listens at a loopback address of its own (``127.x.y.z``), so that several runs go side by
side. Clients reach it at `port`, or at a free one. ``start`` returns when the server serves,
``launch`` at once. The programs are those on PATH, and ZooKeeper's classes those of
TEST_ZOOKEEPER_JARS, so that `make compatibility` can run any version.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from support.certificates import Authority
from support.process import Process
from support.require import require
from support.wait import DEADLINE, until
from support.web import fetch

CACHE = Path(__file__).resolve().parents[2] / ".cache"


def free_ports(ip: str, number: int) -> list[int]:
    """Ports that nobody has at `ip`, below the range from which the kernel gives out its own."""
    found: list[int] = []
    while len(found) < number:
        port = random.randrange(20000, 32000)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((ip, port))
                udp.bind((ip, port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def loopback_ip() -> str:
    """A loopback address that is hardly anybody else's."""
    return f"127.{random.randrange(16, 250)}.{random.randrange(256)}.{random.randrange(1, 255)}"


def program(name: str, *elsewhere: Path, package: str = "") -> str:
    """The path of a program. If it is missing, the test that needs it is skipped."""
    found = shutil.which(name) or next((str(p) for p in elsewhere if p.exists()), "")
    require(name, found, f"Debian's {package}" if package else "make setup")
    return found


class Server(Process):
    """A registry's server with its data in a folder of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        self.ip = loopback_ip()
        self.data = folder / "data"

    def start(self) -> None:
        """Run it and wait until it serves."""
        self.launch()
        self.wait_ready()

    def restart(self) -> None:
        """Stop and start it with its data."""
        self.stop()
        self.start()

    def ready(self) -> bool:
        """Whether it serves now. May raise `OSError` or `HTTPException`."""
        raise NotImplementedError

    def wait_ready(self, deadline: float = DEADLINE) -> None:
        """Wait until it serves. Raises where it has ended, or does not within `deadline`."""

        def check() -> bool:
            if not self.running:
                raise RuntimeError(f"{self.name} has ended; {self.tail()}")
            return self.ready()

        ignore = (OSError, http.client.HTTPException)
        until(check, lambda: f"{self.name} ready; {self.tail()}", deadline, ignore)

    def wipe(self) -> None:
        """Forget everything. The server must not run."""
        assert not self.running, f"{self.name} still runs"
        shutil.rmtree(self.data, ignore_errors=True)

    def remove(self) -> None:
        """Kill it and remove its data. The log stays."""
        self.kill()
        self.wipe()

    def _get(self, address: str, path: str, headers: Mapping[str, str] | None = None) -> Any:
        url = f"http://{address}{path}"
        return json.loads(fetch(urllib.request.Request(url, headers=dict(headers or {}))))


class Consul(Server):
    """A Consul agent: a server (alone, or of `servers`), or a client that joins `join`.

    `config` is merged into its configuration file (ACLs, script checks …). With `authority` it
    also serves HTTPS at `tls_address`, with a client's certificate required.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: Mapping[str, Any] | None = None,
        authority: Authority | None = None,
        name: str = "consul",
        servers: int = 1,
        join: Sequence[str] = (),
        port: int = 0,
    ) -> None:
        super().__init__(name, folder)
        self._binary = program("consul", CACHE / "consul/usr/bin/consul")
        names = ("http", "https", "dns", "server", "serf_lan")
        self.ports = dict(zip(names, free_ports(self.ip, len(names)), strict=True))
        self.ports["http"] = port or self.ports["http"]
        self.address = f"{self.ip}:{self.ports['http']}"
        self.tls_address = f"{self.ip}:{self.ports['https']}"
        self.dns_address = f"{self.ip}:{self.ports['dns']}"
        self.serf_address = f"{self.ip}:{self.ports['serf_lan']}"
        self.config = self._config(dict(config or {}), authority, servers, join)

    def _config(
        self, extra: dict[str, Any], authority: Authority | None, servers: int, join: Sequence[str]
    ) -> dict[str, Any]:
        ports: dict[str, int] = {**self.ports, "serf_wan": -1, "grpc": -1}
        base: dict[str, Any] = {
            "node_name": f"{self.name}-{self.ports['http']}",
            "server": servers > 0,
            "bind_addr": self.ip,
            "client_addr": self.ip,
            "data_dir": str(self.data),
            "retry_join": list(join),
            "retry_interval": "1s",
            "performance": {"raft_multiplier": 1},
            "disable_update_check": True,
            "log_level": "info",
        }
        if servers:
            base["bootstrap_expect"] = servers
        if authority is None:
            ports["https"] = -1
        else:
            cert, key = authority.issue(self.name, self.ip)
            base |= {"ca_file": str(authority.ca), "cert_file": str(cert), "key_file": str(key)}
            base["verify_incoming_https"] = True
        ports |= extra.pop("ports", {})
        return {**base, "ports": ports, **extra}

    def command(self) -> list[str]:
        path = self.folder / "consul.json"
        text = json.dumps(self.config, indent=2)
        if self._version() < (1, 11):
            text = text.replace('"initial_management":', '"master":')
        path.write_text(text)
        return [self._binary, "agent", "-config-file", str(path)]

    def _version(self) -> tuple[int, ...]:
        """Major and minor version of the program."""
        shown = subprocess.run([self._binary, "version"], check=True, capture_output=True)
        found = re.search(rb"v(\d+)\.(\d+)", shown.stdout)
        assert found is not None, shown.stdout
        return int(found[1]), int(found[2])

    def api(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        """The answer to a GET of ``/v1/<path>``."""
        return self._get(self.address, f"/v1/{path}", headers)

    def ready(self) -> bool:
        token = self.config.get("acl", {}).get("tokens", {}).get("initial_management", "")
        nodes = self.api("catalog/nodes", {"X-Consul-Token": token} if token else None)
        node = self.config["node_name"]
        known = any(each["Node"] == node for each in nodes)
        return bool(self.api("status/leader")) and (known or self._denies(token))

    def _denies(self, token: str) -> bool:
        """Whether the catalog cannot be read here, so that the leader has to be sign enough."""
        return "acl" in self.config and not token


class Etcd(Server):
    """A member of etcd. `flags` are added to its command line.

    `peers` maps the members' names to their peer URLs. With `authority` it also serves TLS at
    `tls_address`, with a client's certificate required.
    """

    def __init__(
        self,
        folder: Path,
        *,
        flags: Iterable[str] = (),
        authority: Authority | None = None,
        name: str = "etcd",
        port: int = 0,
    ) -> None:
        super().__init__(name, folder)
        self._binary = program("etcd", package="etcd-server")
        client, tls, peer = free_ports(self.ip, 3)
        self.address = f"{self.ip}:{port or client}"
        self.tls_address = f"{self.ip}:{tls}"
        self.peer_url = f"http://{self.ip}:{peer}"
        self.peers = {name: self.peer_url}
        self.flags = [*flags]
        self._urls = [f"http://{self.address}"]
        if authority is not None:
            cert, key = authority.issue(self.name, self.ip)
            self._urls.append(f"https://{self.tls_address}")
            self.flags += [f"--cert-file={cert}", f"--key-file={key}", "--client-cert-auth"]
            self.flags += [f"--trusted-ca-file={authority.ca}"]

    def command(self) -> list[str]:
        return [
            self._binary,
            f"--name={self.name}",
            f"--data-dir={self.data}",
            f"--listen-client-urls={','.join(self._urls)}",
            f"--advertise-client-urls={','.join(self._urls)}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={','.join(f'{k}={v}' for k, v in self.peers.items())}",
            "--initial-cluster-token=" + "-".join(sorted(self.peers)),
            "--logger=zap",
            *self.flags,
        ]

    def ready(self) -> bool:
        return bool(self._get(self.address, "/health")["health"] == "true")


class ZooKeeper(Server):
    """A ZooKeeper server. `lines` are added to its configuration, `jvm` to Java's flags.

    `ensemble` maps member numbers to their ``server.N`` lines. It is empty for a server alone. A
    tick of 500 ms allows sessions from 1 s on. With `authority` it also serves TLS at
    `tls_address`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        lines: Iterable[str] = (),
        jvm: Iterable[str] = (),
        authority: Authority | None = None,
        name: str = "zookeeper",
        number: int = 1,
        port: int = 0,
    ) -> None:
        super().__init__(name, folder)
        self._java = program("java", package="default-jre-headless")
        self._jars = os.environ.get("TEST_ZOOKEEPER_JARS", "/usr/share/java/*")
        folder_of_jars = Path(self._jars).parent
        require("zookeeper", [*folder_of_jars.glob("zookeeper*.jar")], "Debian's zookeeper")
        client, tls, quorum, election = free_ports(self.ip, 4)
        self.address = f"{self.ip}:{port or client}"
        self.tls_address = f"{self.ip}:{tls}"
        self.member = f"{self.ip}:{quorum}:{election}"
        self.number = number
        self.ensemble: dict[int, str] = {}
        self.lines = [*lines]
        self.jvm = [*jvm]
        if authority is not None:
            self.lines += self._tls(authority, tls)

    def _tls(self, authority: Authority, port: int) -> list[str]:
        cert, key = authority.issue(self.name, self.ip)
        store = self.folder / "keystore.pem"
        store.write_bytes(key.read_bytes() + cert.read_bytes())
        return [
            f"secureClientPort={port}",
            f"secureClientPortAddress={self.ip}",
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
            f"ssl.keyStore.location={store}",
            "ssl.keyStore.type=PEM",
            f"ssl.trustStore.location={authority.ca}",
            "ssl.trustStore.type=PEM",
        ]

    def command(self) -> list[str]:
        self.data.mkdir(exist_ok=True)
        (self.data / "myid").write_text(f"{self.number}\n")
        host, _, port = self.address.partition(":")
        lines = [
            f"dataDir={self.data}",
            f"clientPort={port}",
            f"clientPortAddress={host}",
            "tickTime=500",
            "maxSessionTimeout=60000",
            "initLimit=40",
            "syncLimit=10",
            "maxClientCnxns=0",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
            *(f"server.{number}={member}" for number, member in self.ensemble.items()),
            *self.lines,
        ]
        path = self.folder / "zoo.cfg"
        path.write_text("\n".join(lines) + "\n")
        jvm = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *LOGGING, *self.jvm]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        # Debian installs many bindings of ZooKeeper's logging. The first one on the path is taken.
        classes = f"/usr/share/java/slf4j-simple.jar:{self._jars}"
        return [self._java, *jvm, "-cp", classes, main, str(path)]

    def four_letters(self, word: str) -> str:
        """The answer to one of the four-letter words, as ``mntr`` and ``srvr`` are."""
        host, _, port = self.address.partition(":")
        with socket.create_connection((host, int(port)), 30) as connection:
            connection.sendall(word.encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def ready(self) -> bool:
        return "Mode:" in self.four_letters("srvr")


LOGGING = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


def consul_cluster(
    folder: Path, n_servers: int = 3, n_clients: int = 0, **options: Any
) -> tuple[list[Consul], list[Consul]]:
    """A started cluster: its servers, and the client agents that joined them."""
    servers = [
        Consul(folder / f"server{i}", name=f"server{i}", servers=n_servers, **options)
        for i in range(n_servers)
    ]
    join = [server.serf_address for server in servers]
    clients = [
        Consul(folder / f"client{i}", name=f"client{i}", servers=0, join=join, **options)
        for i in range(n_clients)
    ]
    for server in servers:
        server.config["retry_join"] = join
    start_all([*servers, *clients])
    return servers, clients


def etcd_cluster(folder: Path, n: int = 3, **options: Any) -> list[Etcd]:
    """A started cluster of `n` members."""
    members = [Etcd(folder / f"etcd{i}", name=f"etcd{i}", **options) for i in range(n)]
    for member in members:
        member.peers = {each.name: each.peer_url for each in members}
    start_all(members)
    return members


def zookeeper_cluster(folder: Path, n: int = 3, **options: Any) -> list[ZooKeeper]:
    """A started ensemble of `n` members."""
    members = [
        ZooKeeper(folder / f"zookeeper{i}", name=f"zookeeper{i}", number=i, **options)
        for i in range(1, n + 1)
    ]
    for member in members:
        member.ensemble = {each.number: each.member for each in members}
    start_all(members)
    return members


def start_all(servers: Sequence[Server]) -> None:
    """Start servers that are ready only together. Where one fails, none is left."""
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_ready()
    except BaseException:
        for server in servers:
            server.kill()
        raise
