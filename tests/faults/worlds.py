"""A real cluster of each kind of registry, with the faults that it can be made to have.

The agent reaches the members through proxies, so that a connection can be cut or go mute while
its server lives; the tests' own eyes look at the members directly.
"""

from __future__ import annotations

import abc
import base64
import contextlib
import http.client
import json
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NodeExistsError, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from support.proxy import TCPProxy
from support.servers import (
    Consul,
    Etcd,
    Server,
    ZooKeeper,
    consul_cluster,
    etcd_cluster,
    zookeeper_cluster,
)
from support.wait import until
from support.zookeeper import mode

from registrator.backends.consul.agent import GRACE

READ_ERRORS = (
    OSError,
    http.client.HTTPException,
    KazooException,
    KazooTimeoutError,
    ValueError,
    KeyError,
)

Record = tuple[str, str, int]

# An entry that somebody else keeps beside ours, and the id of each entry that is not the agents'.
STRANGER = "postgres"
STRANGERS_ADDRESS, STRANGERS_PORT = "127.9.9.9", 5432

# What a registry says that has too much to do, or none to lead it.
BUSY = {
    "busy": b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
    "leaderless": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
}


class World(abc.ABC):
    """A cluster: `members` fail one by one, `proxies` lead to those that the agent is given.

    The proxies listen at `ip`; `options` are every member's.
    """

    name: str
    options: Sequence[str] = ()
    member_kinds: tuple[str, ...] = ("kill", "freeze")
    proxy_kinds: tuple[str, ...] = ("cut", "mute")
    world_kinds: tuple[str, ...] = ("partition", "wipe", "outage", "reset", "edit", "delete")

    # Seconds after the last fault within which all must agree.
    settled = 5.0

    def __init__(self, members: Sequence[Server], addresses: Sequence[str], ip: str) -> None:
        self.members = list(members)
        self.readers = list(members)  # those that are asked what stands
        self.proxies = [TCPProxy(address, ip) for address in addresses]

    @property
    @abc.abstractmethod
    def uri(self) -> str:
        """The URI that leads the agent through the proxies."""

    @abc.abstractmethod
    def entries(self) -> list[Record]:
        """Id, address and port of all that stands there, doubles included; may fail."""

    def ours(self) -> list[Record]:
        """The entries without the stranger's; may fail."""
        return [record for record in self.entries() if record[0] != STRANGER]

    def details(self) -> str:
        """More facts about why the registry holds what it holds. It may fail."""
        return ""

    @abc.abstractmethod
    def wipe(self) -> None:
        """Delete all entries behind the agent's back."""

    @abc.abstractmethod
    def plant(self) -> None:
        """Write the stranger's entry."""

    @abc.abstractmethod
    def strangers(self) -> object:
        """The stranger's entry with all that the registry says of it, or nothing; may fail."""

    @abc.abstractmethod
    def spoil(self, service_id: str, kind: str) -> None:
        """Somebody edits or deletes one of our entries; may fail."""

    @abc.abstractmethod
    def serves(self) -> bool:
        """Whether the cluster takes writes; may fail."""

    def leads(self, member: Server) -> bool:
        """Whether a member is the cluster's leader."""
        raise NotImplementedError

    def serves_agent(self, member: Server) -> bool:
        """Whether the agent's connection is to this member, where it can't be chosen."""
        return True

    def targets(self) -> dict[str, tuple[str, ...]]:
        """The faults that this world can have."""
        found = {f"member {i}": self.member_kinds for i in range(len(self.members))}
        found |= {f"proxy {i}": self.proxy_kinds for i in range(len(self.proxies))}
        return found | {"cluster": self.world_kinds}

    def begin(self, target: str, kind: str) -> None:
        """Let a fault begin."""
        what, _, number = target.partition(" ")
        if what == "member":
            self.break_member(self.members[int(number)], kind)
        elif what == "proxy":
            proxy = self.proxies[int(number)]
            if kind in BUSY:
                proxy.instead = BUSY[kind]
            else:
                proxy.cut() if kind == "cut" else proxy.freeze()
        else:
            self._begin_cluster(kind)

    def break_member(self, member: Server, kind: str) -> None:
        """Kill or freeze a member."""
        if member.running:
            member.kill() if kind == "kill" else member.freeze()

    def _begin_cluster(self, kind: str) -> None:
        if kind == "partition":
            for proxy in self.proxies:
                proxy.freeze()
        elif kind == "wipe":
            with contextlib.suppress(*READ_ERRORS):
                self.wipe()
        elif kind in ("edit", "delete"):
            with contextlib.suppress(*READ_ERRORS):
                for service_id, _, _ in self.ours()[:2]:
                    self.spoil(service_id, kind)
        else:
            for member in self.members:
                member.kill()
                if kind == "reset":
                    member.wipe()

    def end(self, target: str, kind: str) -> None:
        """Let a fault end."""
        what, _, number = target.partition(" ")
        if what == "member":
            self._revive([self.members[int(number)]])
        elif what == "proxy":
            self.proxies[int(number)].instead = b""
            self.proxies[int(number)].thaw()
        elif kind == "partition":
            for proxy in self.proxies:
                proxy.thaw()
        elif kind in ("outage", "reset"):
            self._revive(self.members)

    def _revive(self, members: Sequence[Server]) -> None:
        for member in members:
            if member.running:
                member.thaw()
            else:
                member.launch()

    def heal(self) -> None:
        """End all faults; returns once the cluster takes writes."""
        for proxy in self.proxies:
            proxy.instead = b""
            proxy.thaw()
        self._revive(self.members)
        for member in self.members:
            member.wait_ready()
        until(self.serves, f"{self.name} serves", ignore=READ_ERRORS)

    def remove(self) -> None:
        """Stop everything."""
        for proxy in self.proxies:
            proxy.close()
        for member in self.members:
            member.remove()


def first(calls: Sequence[Callable[[], Any]]) -> Any:
    """The result of the first call that works; raises what the last one raised."""
    for call in calls[:-1]:
        with contextlib.suppress(*READ_ERRORS):
            return call()
    return calls[-1]()


class ConsulWorld(World):
    """Three servers and two client agents; the agent registers with either client."""

    name = "consul"
    options = ("-resync", "3")
    proxy_kinds = (*World.proxy_kinds, *BUSY)
    # After a move, a copy of what no longer runs may stay at the former agent for as long as GRACE.
    settled = World.settled + GRACE

    def __init__(self, folder: Path, ip: str = "127.0.0.1", **options: Any) -> None:
        self._servers, clients = consul_cluster(folder, 3, 2, **options)
        super().__init__([*clients, *self._servers], [client.address for client in clients], ip)

    @property
    def uri(self) -> str:
        return f"consul://{','.join(proxy.address for proxy in self.proxies)}?timeout=1"

    def entries(self) -> list[Record]:
        return list(first([lambda s=s: self._catalog(s) for s in self._servers]))  # type: ignore[misc]

    def _catalog(self, server: Consul) -> list[Record]:
        found = []
        for name in server.api("catalog/services?consistent"):
            if name not in ("consul", "registrator"):
                for row in server.api(f"catalog/service/{name}?consistent"):
                    found.append((row["ServiceID"], row["ServiceAddress"], row["ServicePort"]))
        return sorted(found)

    def wipe(self) -> None:
        for client in self._clients:
            for service_id in client.api("agent/services"):
                if service_id != STRANGER:
                    self._put(client, f"deregister/{service_id}")

    def details(self) -> str:
        held = [f"{c.address}: {sorted(c.api('agent/services'))}" for c in self._clients]
        return "held by the agents themselves: " + ", ".join(held)

    @property
    def _clients(self) -> list[Consul]:
        return [each for each in self.members[:2] if isinstance(each, Consul)]

    def _put(self, client: Consul, path: str, body: object = None) -> None:
        url = f"http://{client.address}/v1/agent/service/{path}"
        data = b"" if body is None else json.dumps(body).encode()
        urllib.request.urlopen(urllib.request.Request(url, data, method="PUT"), timeout=2).close()

    def plant(self) -> None:
        body = {"ID": STRANGER, "Name": STRANGER, "Address": STRANGERS_ADDRESS,
                "Port": STRANGERS_PORT, "Tags": ["by hand"]}  # fmt: skip
        self._put(self._clients[0], "register", body)

    def strangers(self) -> object:
        # Consul counts anew after a restart: the index says nothing.
        found = dict(self._clients[0].api("agent/services").get(STRANGER, {}))
        return {k: v for k, v in found.items() if not k.endswith("Index")}

    def spoil(self, service_id: str, kind: str) -> None:
        for client in self._clients:
            found = client.api("agent/services").get(service_id)
            if found and kind == "edit":
                body = {"ID": service_id, "Name": found["Service"], "Address": "127.66.6.6"}
                self._put(client, "register", body | {"Port": 1, "Meta": found["Meta"]})
            elif found:
                self._put(client, f"deregister/{service_id}")

    def serves(self) -> bool:
        nodes = [s.api("agent/members") for s in (*self._servers, *self.members[:2])]  # type: ignore[attr-defined]
        return all(sum(m["Status"] == 1 for m in seen) == 5 for seen in nodes)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class EtcdWorld(World):
    """Three members, and a lease of 5 seconds."""

    name = "etcd"
    options = ("-resync", "3", "-ttl", "5", "-ttl-refresh", "1")
    world_kinds = (*World.world_kinds, "expire")

    def __init__(self, folder: Path, ip: str = "127.0.0.1", **options: Any) -> None:
        members = etcd_cluster(folder, 3, **options)
        super().__init__(members, [member.address for member in members], ip)

    @property
    def uri(self) -> str:
        return f"etcd://{','.join(p.address for p in self.proxies)}/services?timeout=1"

    def entries(self) -> list[Record]:
        rows = self._post("kv/range", self._range).get("kvs", ())
        found = []
        for row in rows:
            key, value = (base64.b64decode(row[part]).decode() for part in ("key", "value"))
            address, _, port = value.rpartition(":")
            found.append((key.rpartition("/")[2], address, int(port)))
        return sorted(found)

    @property
    def _range(self) -> dict[str, str]:
        ends = {"key": "/services/", "range_end": "/services0"}
        return {name: base64.b64encode(end.encode()).decode() for name, end in ends.items()}

    def _post(self, path: str, body: object) -> Any:
        return first([lambda m=m: self._post_to(m, path, body) for m in self.readers])  # type: ignore[misc]

    def _post_to(self, member: Etcd, path: str, body: object) -> Any:
        url = f"http://{member.address}/v3/{path}"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=2) as answer:
            return json.load(answer)

    def leads(self, member: Server) -> bool:
        assert isinstance(member, Etcd)
        status = self._post_to(member, "maintenance/status", {})
        return bool(status["leader"] == status["header"]["member_id"])

    def wipe(self) -> None:
        self._post("kv/deleterange", self._range)
        self.plant()

    def plant(self) -> None:
        self._put(self._key, f"{STRANGERS_ADDRESS}:{STRANGERS_PORT}")

    def strangers(self) -> object:
        rows = self._post("kv/range", {"key": _base64(self._key)}).get("kvs", ())
        return [(row["value"], row.get("lease"), row["version"]) for row in rows]

    def spoil(self, service_id: str, kind: str) -> None:
        for row in self._post("kv/range", self._range).get("kvs", ()):
            key = base64.b64decode(row["key"]).decode()
            if key.endswith(f"/{service_id}") and kind == "edit":
                self._put(key, "127.66.6.6:1")
            elif key.endswith(f"/{service_id}"):
                self._post("kv/deleterange", {"key": row["key"]})

    @property
    def _key(self) -> str:
        return f"/services/{STRANGER}/{STRANGER}"

    def _put(self, key: str, value: str) -> None:
        self._post("kv/put", {"key": _base64(key), "value": _base64(value)})

    def _begin_cluster(self, kind: str) -> None:
        if kind != "expire":
            super()._begin_cluster(kind)
            return
        with contextlib.suppress(*READ_ERRORS):
            for lease in self._post("lease/leases", {}).get("leases", ()):
                self._post("lease/revoke", {"ID": lease["ID"]})

    def serves(self) -> bool:
        for member in self.members:
            assert isinstance(member, Etcd)
            probe = {"key": base64.b64encode(b"probe").decode(), "value": ""}
            self._post_to(member, "kv/put", probe)
        return True


class ZooKeeperWorld(World):
    """Three members, and a session that a partition outlasts now and then."""

    name = "zookeeper"
    options = ("-resync", "3")

    def __init__(self, folder: Path, ip: str = "127.0.0.1", **options: Any) -> None:
        members = zookeeper_cluster(folder, 3, **options)
        super().__init__(members, [member.address for member in members], ip)

    @property
    def uri(self) -> str:
        addresses = ",".join(proxy.address for proxy in self.proxies)
        return f"zookeeper://{addresses}/services?timeout=1&session-timeout=3"

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
        body = {"ID": STRANGER, "IP": STRANGERS_ADDRESS, "PublicPort": STRANGERS_PORT}
        with self._client() as client, contextlib.suppress(NodeExistsError):
            client.create(self._path, json.dumps(body).encode(), makepath=True)

    def strangers(self) -> object:
        with self._client() as client:
            client.sync("/")
            return client.get(self._path)[:1] if client.exists(self._path) else ()

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


WORLDS: dict[str, Callable[..., World]] = {
    world.name: world for world in (ConsulWorld, EtcdWorld, ZooKeeperWorld)
}
