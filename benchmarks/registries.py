"""Consul and ZooKeeper as the benchmarks use them, and how every kind is run."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contract.consul import LABELLED, NAMED, TELEMETRY
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from support.servers import Consul, ZooKeeper

from benchmarks.agents import Host
from benchmarks.etcd import EtcdRegistry, SkyDNSRegistry
from benchmarks.http_client import Client, all_of, request
from benchmarks.registry import BASE, NAME, OWNER, Registry

SERVICES = "/v1/agent/services"
# The agent uses 8 for Consul. The floor also tries half and twice as many.
CONNECTIONS = (4, 8, 16)


def ask(address: str, target: str, method: str = "GET") -> bytes:
    """The body of an answer, by a new connection. Empty if there is nothing."""
    client = Client(address)
    status, body = client.ask(request(method, target))
    client.close()
    return body if status == 200 else b""


class ConsulRegistry(Registry):
    scheme = "consul"
    path = ""

    def __init__(self, folder: Path) -> None:
        self.server = self.consul = Consul(folder, config=TELEMETRY)

    @property
    def address(self) -> str:
        return self.consul.address

    def count(self, host: Host | None = None) -> int:
        found = json.loads(ask(self.address, SERVICES))
        return sum(each.startswith(self.start_of(host)) for each in found)

    def requests(self) -> int:
        text = ask(self.address, "/v1/agent/metrics?format=prometheus").decode()
        rows = re.findall(LABELLED, text, re.M) or re.findall(NAMED, text, re.M)
        return sum(int(number) for _, path, number in rows if path != "v1_agent_metrics")

    def floor(self, n: int) -> float:
        """The best time over several numbers of connections."""
        best = float("inf")
        for connections in CONNECTIONS:
            self.reset()
            requests = [self.registration(number) for number in range(n)]
            began = time.perf_counter()
            all_of(self.consul.address, requests, connections)
            best = min(best, time.perf_counter() - began)
        return best

    @staticmethod
    def registration(number: int) -> bytes:
        """The request that registers a service like the agent's."""
        body = {
            "ID": f"floor:bench-{number}:80",
            "Name": NAME,
            "Address": "192.0.2.1",
            "Port": 10000 + number,
            "Tags": ["blue", "http"],
            "Meta": {"region": "west", "version": "1.4.2", "registrator-owner": OWNER},
        }
        target = "/v1/agent/service/register?replace-existing-checks=true"
        return request("PUT", target, json.dumps(body).encode())


class ConsulKVRegistry(ConsulRegistry):
    """Keys in Consul's store."""

    scheme = "consulkv"
    path = BASE

    def clear(self, host: Host) -> None:
        target = f"/v1/kv{BASE}/{NAME}/{self.start_of(host)}?recurse"
        assert ask(self.address, target, "DELETE").strip() == b"true"

    def count(self, host: Host | None = None) -> int:
        target = f"/v1/kv{BASE}/{NAME}/{self.start_of(host)}?keys"
        return len(json.loads(ask(self.address, target) or "[]"))


class ZooKeeperRegistry(Registry):
    scheme = "zookeeper"

    def __init__(self, folder: Path) -> None:
        self.server = self.zookeeper = ZooKeeper(folder, jvm=["-Xmx1g"])
        self._looks = 0

    @property
    def address(self) -> str:
        return self.zookeeper.address

    @contextmanager
    def client(self) -> Iterator[KazooClient]:
        """A separate client."""
        client = KazooClient(self.zookeeper.address)
        client.start(30)
        try:
            yield client
        finally:
            client.stop()
            client.close()

    def count(self, host: Host | None = None) -> int:
        with self.client() as client:
            try:
                found = client.get_children(f"{BASE}/{NAME}")
            except NoNodeError:
                return 0
        return sum(each.startswith(self.start_of(host)) for each in found)

    def clear(self, host: Host) -> None:
        with self.client() as client:
            for each in client.get_children(f"{BASE}/{NAME}"):
                if each.startswith(self.start_of(host)):
                    client.delete(f"{BASE}/{NAME}/{each}")

    @staticmethod
    def start_of(host: Host | None) -> str:
        return f"{host.ip}:" if host else ""

    def requests(self) -> int:
        """Without the looks at this number, which the server counts as well."""
        shown = re.search(r"Received: (\d+)", self.zookeeper.four_letters("srvr"))
        assert shown is not None
        self._looks += 1
        return int(shown[1]) - self._looks

    def floor(self, n: int) -> float:
        """Transactions as large as the agent's. All are sent before the first answer."""
        self.reset()
        with self.client() as client:
            client.ensure_path(f"{BASE}/{NAME}")
            made = []
            for first in range(0, n, 1000):
                made.append(client.transaction())
                for number in range(first, min(n, first + 1000)):
                    path = f"{BASE}/{NAME}/192.0.2.1:{10000 + number}"
                    made[-1].create(path, self.content(number), ephemeral=True)
            began = time.perf_counter()
            for answer in [each.commit_async() for each in made]:
                answer.get(timeout=60)
            return time.perf_counter() - began

    @staticmethod
    def content(number: int) -> bytes:
        """The content of a node, like the agent's."""
        return json.dumps(
            {
                "Name": NAME,
                "IP": "192.0.2.1",
                "PublicPort": 10000 + number,
                "PrivatePort": 80,
                "ContainerID": f"{number:012x}",
                "Tags": ["blue", "http"],
                "Attrs": {"region": "west", "version": "1.4.2"},
                "ID": f"floor:bench-{number}:80",
                "Owner": OWNER,
            }
        ).encode()


KINDS: dict[str, type[Registry]] = {
    kind.scheme: kind
    for kind in (
        ConsulRegistry, ConsulKVRegistry, ZooKeeperRegistry, EtcdRegistry, SkyDNSRegistry
    )
}  # fmt: skip


@contextmanager
def running(scheme: str) -> Iterator[Any]:
    """A registry. It is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{scheme}-") as folder:
        registry = KINDS[scheme](Path(folder))
        try:
            registry.server.start()
            yield registry
        finally:
            registry.server.remove()
