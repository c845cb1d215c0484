"""The floor of an event: the least work between the event and a registry.

    python -m benchmarks.minimal_agent SOCKET consul|zookeeper HOST:PORT

It reads the engine's events. For each start it sends one inspection and one registration. For each
end it sends one deregistration. It has no listing, no checks, no memory and no second attempt. It
serves containers with one published port.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from kazoo.client import KazooClient

from benchmarks.agents import HOST
from benchmarks.http_client import Client, request
from benchmarks.registries import ZooKeeperRegistry
from benchmarks.registry import BASE, NAME

EVENTS = {"type": ["container"], "event": ["start", "die"]}


class Target(Protocol):
    """The registry that it writes to."""

    def register(self, name: str, ip: str, port: int) -> None: ...
    def deregister(self, name: str, ip: str, port: int) -> None: ...


class ToConsul:
    """Writes to Consul over one kept-alive connection."""

    def __init__(self, address: str) -> None:
        self._client = Client(address)

    def register(self, name: str, ip: str, port: int) -> None:
        body = {"ID": f"{HOST}:{name}:80", "Name": NAME, "Address": ip, "Port": port}
        target = "/v1/agent/service/register?replace-existing-checks=true"
        self._client.ask(request("PUT", target, json.dumps(body).encode()))

    def deregister(self, name: str, ip: str, port: int) -> None:
        self._client.ask(request("PUT", f"/v1/agent/service/deregister/{HOST}:{name}:80"))


class ToZooKeeper:
    """Writes to ZooKeeper in one session."""

    def __init__(self, address: str) -> None:
        self._client = KazooClient(address)
        self._client.start(30)
        self._client.ensure_path(f"{BASE}/{NAME}")

    def register(self, name: str, ip: str, port: int) -> None:
        content = ZooKeeperRegistry.content(port)
        self._client.create(f"{BASE}/{NAME}/{ip}:{port}", content, ephemeral=True)

    def deregister(self, name: str, ip: str, port: int) -> None:
        self._client.delete(f"{BASE}/{NAME}/{ip}:{port}")


TARGETS: dict[str, type[ToConsul] | type[ToZooKeeper]] = {
    "consul": ToConsul,
    "zookeeper": ToZooKeeper,
}


def main(socket: Path, target: Target) -> None:
    """Serve until it is killed."""
    events, inspections = Client(socket), Client(socket)
    known: dict[str, tuple[str, str, int]] = {}
    query = urlencode({"filters": json.dumps(EVENTS)})
    events.send(request("GET", f"/v1.41/events?{query}"))
    print("ready", flush=True)
    with events.sock.makefile("rb") as lines:
        events.sock.settimeout(None)
        for line in lines:
            if line.startswith(b"{"):
                event: dict[str, Any] = json.loads(line)
                identity = event["Actor"]["ID"]
                if event["Action"] == "start":
                    _, body = inspections.ask(request("GET", f"/v1.41/containers/{identity}/json"))
                    container = json.loads(body)
                    (bound,) = container["NetworkSettings"]["Ports"]["80/tcp"]
                    name = container["Name"].removeprefix("/")
                    known[identity] = (name, bound["HostIp"], int(bound["HostPort"]))
                    target.register(*known[identity])
                elif identity in known:
                    target.deregister(*known.pop(identity))


if __name__ == "__main__":
    main(Path(sys.argv[1]), TARGETS[sys.argv[2]](sys.argv[3]))
