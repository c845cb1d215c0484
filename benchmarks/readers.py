"""Readers that see services come and go in a registry, at little cost for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlencode

from kazoo.client import KazooClient
from kazoo.protocol.states import WatchedEvent

from benchmarks.http_client import Client, request
from benchmarks.registries import ConsulRegistry, ZooKeeperRegistry
from benchmarks.registry import BASE, NAME


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
