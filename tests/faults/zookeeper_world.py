"""ZooKeeper: three members. It has no passwords that anybody could replace (see its page)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import NodeExistsError, NoNodeError
from support.servers import Server, ZooKeeper, zookeeper_cluster
from support.zookeeper import mode

from faults.world import STRANGER, STRANGERS_ADDRESS, Record, World


class ZooKeeperWorld(World):
    """Three members, and a session that a partition outlasts now and then."""

    name = "zookeeper"
    options = ("-resync", "3")
    rest = "/services?timeout=1&session-timeout=3"
    tls = ("ZOOKEEPER_CACERT", "ZOOKEEPER_CERT", "ZOOKEEPER_KEY")

    def __init__(self, folder: Path, ip: str = "127.0.0.1", **options: Any) -> None:
        members = zookeeper_cluster(folder, 3, **options)
        super().__init__(members, [member.address for member in members], folder, ip)

    @contextlib.contextmanager
    def _client(self) -> Any:
        client = KazooClient(",".join(m.address for m in self.readers))  # type: ignore[attr-defined]
        try:
            client.start(5)
            yield client
        finally:
            client.stop()
            client.close()

    def entries(self) -> list[Record]:
        with self._client() as client:
            client.sync("/")
            return sorted(self._records(client))

    def _records(self, client: KazooClient) -> list[Record]:
        found = []
        try:
            names = client.get_children("/services")
        except NoNodeError:
            return []
        for name in names:
            with contextlib.suppress(NoNodeError):
                for child in client.get_children(f"/services/{name}"):
                    body = json.loads(client.get(f"/services/{name}/{child}")[0])
                    found.append((body["ID"], body["IP"], body["PublicPort"]))
        return found

    def wipe(self) -> None:
        with self._client() as client:
            client.delete("/services", recursive=True)
        self.plant()

    def plant(self) -> None:
        body = {"ID": STRANGER, "IP": STRANGERS_ADDRESS, "PublicPort": self.port}
        text = json.dumps(body).encode()
        with self._client() as client:
            try:
                client.create(self._path, text, makepath=True)
            except NodeExistsError:
                client.set(self._path, text)

    def uproot(self) -> None:
        with self._client() as client, contextlib.suppress(NoNodeError):
            client.delete(self._path)

    def strangers(self) -> object:
        with self._client() as client:
            client.sync("/")
            try:
                data, stat = client.get(self._path)
            except NoNodeError:
                return None
            return data, stat.version, stat.ephemeralOwner

    def spoil(self, service_id: str, kind: str) -> None:
        with self._client() as client:
            for name in client.get_children("/services"):
                path = f"/services/{name}/{service_id}"
                if client.exists(path) and kind == "edit":
                    client.set(
                        path, json.dumps({"ID": service_id, "IP": "", "PublicPort": 1}).encode()
                    )
                elif client.exists(path):
                    client.delete(path)

    @property
    def _path(self) -> str:
        return f"/services/{STRANGER}/{STRANGER}"

    def leads(self, member: Server) -> bool:
        assert isinstance(member, ZooKeeper)
        return mode(member) == "leader"

    def serves_agent(self, member: Server) -> bool:
        assert isinstance(member, ZooKeeper)
        return "sid=" in member.four_letters("cons")

    def serves(self) -> bool:
        modes = [m.four_letters("srvr") for m in self.members]  # type: ignore[attr-defined]
        return sum("Mode: leader" in mode for mode in modes) == 1
