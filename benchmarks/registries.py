"""Each kind of registry as the benchmarks use it: a real server, its floor, and a reader.

The floor is the time of the bare requests that the job needs. The benchmark makes them beforehand,
and a minimal client sends them.
"""

from __future__ import annotations

import functools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kazoo.client import KazooClient
from kazoo.protocol.states import WatchedEvent
from support.servers import Consul, Etcd, Server, ZooKeeper

from benchmarks.http_client import Client, all_of, request

BASE, NAME, OWNER = "/bench", "web", "FLOOR"
# The agent uses 8 for Consul. The floor also tries half and twice as many.
CONNECTIONS = (4, 8, 16)


class Registry:
    """A running server. A service's `key` is its id in Consul and etcd, else ``ip:port``."""

    scheme = ""
    server: Server

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    @property
    def uri(self) -> str:
        """The registry URI for the agent."""
        raise NotImplementedError

    def count(self) -> int:
        """How many services the registry holds."""
        raise NotImplementedError

    def floor(self, n: int) -> float:
        """The least seconds for `n` services. The registry holds them afterwards."""
        raise NotImplementedError

    def reset(self) -> None:
        """Remove all services."""
        self.server.kill()
        self.server.wipe()
        self.server.start()


class ConsulRegistry(Registry):
    scheme = "consul"

    def __init__(self, folder: Path) -> None:
        self.server = self.consul = Consul(folder)

    @property
    def uri(self) -> str:
        return f"consul://{self.consul.address}"

    def count(self) -> int:
        client = Client(self.consul.address)
        _, body = client.ask(request("GET", "/v1/agent/services"))
        client.close()
        return len(json.loads(body))

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


class ZooKeeperRegistry(Registry):
    scheme = "zookeeper"

    def __init__(self, folder: Path) -> None:
        self.server = self.zookeeper = ZooKeeper(folder, jvm=["-Xmx512m"])

    @property
    def uri(self) -> str:
        return f"zookeeper://{self.zookeeper.address}{BASE}"

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

    def count(self) -> int:
        with self.client() as client:
            client.ensure_path(f"{BASE}/{NAME}")
            return len(client.get_children(f"{BASE}/{NAME}"))

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


class EtcdRegistry(Registry):
    scheme = "etcd"

    def __init__(self, folder: Path) -> None:
        self.server = self.etcd = Etcd(folder)

    @property
    def uri(self) -> str:
        return f"etcd://{self.etcd.address}{BASE}"

    @functools.cached_property
    def _modules(self) -> tuple[Any, Any]:
        # The backend has the messages.
        from registrator.backends.etcd import rpc as etcd_grpc

        return etcd_grpc.grpc, etcd_grpc.etcdrpc

    def _call(self, method: str, requests: Sequence[bytes]) -> list[bytes]:
        """Send serialized requests, one after the other."""
        channel = self._modules[0].insecure_channel(self.etcd.address)
        call = channel.unary_unary(f"/etcdserverpb.KV/{method}")
        call(requests[0][:0], timeout=10) if method == "Txn" else None
        began = time.perf_counter()
        answers = [call(each, timeout=10) for each in requests]
        self.took = time.perf_counter() - began
        channel.close()
        return answers

    def count(self) -> int:
        rpc = self._modules[1]
        prefix = f"{BASE}/".encode()
        asked = rpc.RangeRequest(key=prefix, range_end=f"{BASE}0".encode(), count_only=True)
        (answer,) = self._call("Range", [asked.SerializeToString()])
        return int(rpc.RangeResponse.FromString(answer).count)

    def floor(self, n: int) -> float:
        """Transactions as large as the agent's, one after the other."""
        self.reset()
        rpc = self._modules[1]
        requests = []
        for first in range(0, n, 128):
            puts = [
                rpc.PutRequest(
                    key=f"{BASE}/{NAME}/floor:bench-{number}:80".encode(),
                    value=f"192.0.2.1:{10000 + number}".encode(),
                )
                for number in range(first, min(n, first + 128))
            ]
            txn = rpc.TxnRequest(success=[rpc.RequestOp(request_put=put) for put in puts])
            requests.append(txn.SerializeToString())
        self._call("Txn", requests)
        return self.took


KINDS: dict[str, type[Registry]] = {
    kind.scheme: kind for kind in (ConsulRegistry, ZooKeeperRegistry, EtcdRegistry)
}


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


class Reader:
    """Sees services come and go. `seen` and `gone` hold the times, in ns since the epoch."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.gone: dict[str, int] = {}

    def expect(self, key: str, present: bool) -> None:
        """Watch for a service to be there, or to be gone."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop looking."""
        raise NotImplementedError

    def wait(self, keys: Iterable[str], present: bool, deadline: float = 30) -> dict[str, int]:
        """When each key was first seen, or seen to be gone. Without keys that never were."""
        keys = tuple(keys)
        times = self.seen if present else self.gone
        end = time.monotonic() + deadline
        while not all(key in times for key in keys) and time.monotonic() < end:
            time.sleep(0.002)
        return {key: times[key] for key in keys if key in times}


class ConsulReader(Reader):
    """Asks for each expected service in turn, every quarter of a millisecond. Keys are ids.

    Consul itself tells when a service is gone: the end of a container needs every core.
    """

    PAUSE = 0.00025
    WAIT = "10ms"

    def __init__(self, registry: ConsulRegistry) -> None:
        super().__init__()
        self._client = Client(registry.consul.address)
        self._expected: dict[tuple[str, bool], bytes] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def expect(self, key: str, present: bool) -> None:
        (self.seen if present else self.gone).pop(key, None)
        self._expected[key, present] = request("GET", f"/v1/agent/service/{key}")

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def _look(self) -> None:
        while not self._stop.is_set():
            for (key, present), data in list(self._expected.items()):
                status, body = self._client.ask(data)
                if status == 200 and not present:
                    status = self._await_change(key, json.loads(body)["ContentHash"])
                if (status == 200) == present:
                    del self._expected[key, present]
                    (self.seen if present else self.gone)[key] = time.time_ns()
            time.sleep(self.PAUSE)

    def _await_change(self, key: str, content_hash: str) -> int:
        """The status of the service after its next change, or after `WAIT`."""
        query = urlencode({"hash": content_hash, "wait": self.WAIT})
        status, _ = self._client.ask(request("GET", f"/v1/agent/service/{key}?{query}"))
        return status


class ZooKeeperReader(Reader):
    """Sets a watch for each service. Keys are ``ip:port``."""

    def __init__(self, registry: ZooKeeperRegistry) -> None:
        super().__init__()
        self._client = KazooClient(registry.zookeeper.address)
        self._client.start(30)

    def expect(self, key: str, present: bool) -> None:
        times = self.seen if present else self.gone
        times.pop(key, None)

        def changed(event: WatchedEvent) -> None:
            times.setdefault(key, time.time_ns())

        stat = self._client.exists(f"{BASE}/{NAME}/{key}", watch=changed)
        if (stat is not None) == present:
            times.setdefault(key, time.time_ns())

    def close(self) -> None:
        self._client.stop()
        self._client.close()


READERS: dict[str, Callable[[Any], Reader]] = {
    "consul": ConsulReader,
    "zookeeper": ZooKeeperReader,
}
