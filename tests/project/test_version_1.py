"""A host moves over from version 1.0.0, and back to it: in every registry, without a gap."""

from __future__ import annotations

import json
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import RunAgent
from kazoo.client import KazooClient
from support.agent import Agent
from support.engine import Dockerd
from support.etcd import ctl, keys, revision
from support.servers import Consul, Etcd, ZooKeeper
from support.wait import until
from support.zookeeper import client, holders

from registrator.health import NAME, problems

# The package of version 1.0.0, as it was released.
RELEASE = Path(__file__).with_name("registrator-1.0.0.zip")
IP = "127.10.0.1"
PLACE = "moving"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment in which Python finds version 1.0.0 before the present one."""
    folder = tmp_path_factory.mktemp("release")
    with zipfile.ZipFile(RELEASE) as packed:
        packed.extractall(folder)
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


class Registries:
    """All registries that one agent serves, as their readers see them."""

    def __init__(
        self, consul: Consul, etcd: Etcd, zookeeper: ZooKeeper, reader: KazooClient, file: Path
    ) -> None:
        self.consul, self.etcd, self.zookeeper, self.file = consul, etcd, zookeeper, file
        self._reader = reader

    def uris(self) -> list[str]:
        return [
            f"consul://{self.consul.address}",
            f"consulkv://{self.consul.address}/{PLACE}",
            f"etcd://{self.etcd.address}/{PLACE}",
            f"skydns2://{self.etcd.address}/{PLACE}.local",
            f"zookeeper://{self.zookeeper.address}/{PLACE}",
            f"file://{self.file}",
        ]

    def names(self) -> dict[str, set[str]]:
        """The keys or ids that a reader finds in each registry."""
        found = {name: holders(self._reader, f"/{PLACE}/{name}") for name in self._services()}
        return {
            "consul": self._ids(self.consul.api("agent/services")),
            "consulkv": set(self.consul.api(f"kv/{PLACE}/?keys")),
            "etcd": set(keys(self.etcd, f"/{PLACE}/")),
            "skydns2": set(keys(self.etcd, f"/skydns/local/{PLACE}/")),
            "zookeeper": {f"{name}/{each}" for name, nodes in found.items() for each in nodes},
            "file": {group["labels"]["id"] for group in json.loads(self.file.read_text())},
        }

    def _services(self) -> Sequence[str]:
        return list(self._reader.get_children(f"/{PLACE}"))

    def hosts(self) -> set[str]:
        """The hosts that the services of Consul name. Version 1.0.0 names none."""
        found = self.consul.api("agent/services")
        ours = (found[key] for key in self._ids(found))
        return {each["Meta"].get("registrator-host", "") for each in ours}

    def _ids(self, services: Mapping[str, Any]) -> set[str]:
        """The services of Consul without the agents' own ones."""
        return {key for key in services if not key.startswith("registrator:")}

    def _rows(self, field: str) -> dict[str, dict[str, Any]]:
        """A field of each row in Consul: the catalog's, and the pairs'."""
        names = self.consul.api("catalog/services")
        found = [row for name in names for row in self.consul.api(f"catalog/service/{name}")]
        pairs = self.consul.api(f"kv/{PLACE}/?recurse")
        return {
            "consul": {row["ServiceID"]: row[field] for row in found},
            "consulkv": {pair["Key"]: pair[field] for pair in pairs},
        }

    def births(self) -> set[tuple[str, Any]]:
        """The moment at which each entry was made. One that was missing is made anew."""
        text = ctl(self.etcd, "get", "/", "--prefix", "--write-out=json")
        pairs = json.loads(text)["kvs"]
        rows = self._rows("CreateIndex").values()
        return {
            *(item for row in rows for item in row.items() if "registrator:" not in item[0]),
            *((pair["key"], pair["create_revision"]) for pair in pairs),
        }

    def writes(self) -> dict[str, Any]:
        """The numbers that each write changes. ZooKeeper has none: its nodes need a session."""
        return {
            **self._rows("ModifyIndex"),
            "etcd": revision(self.etcd),
            "file": self.file.stat().st_mtime_ns,
        }


class Watch(threading.Thread):
    """Looks at all registries without pause, and notes what is missing."""

    def __init__(
        self, look: Callable[[], Mapping[str, set[str]]], wanted: Mapping[str, set[str]]
    ) -> None:
        super().__init__(daemon=True)
        self._look, self._wanted = look, wanted
        self._end = threading.Event()
        self.looks = 0
        self.missing: set[tuple[str, str]] = set()
        self.failed: Exception | None = None

    def run(self) -> None:
        try:
            while not self._end.is_set():
                now = self._look()
                for kind, wanted in self._wanted.items():
                    self.missing |= {(kind, key) for key in wanted - now[kind]}
                self.looks += 1
        except Exception as error:
            self.failed = error

    def stop(self) -> None:
        """Look a few times more, and end."""
        enough = self.looks + 3
        until(lambda: self.looks >= enough or self.failed, "some more looks")
        self._end.set()
        self.join(60)
        assert self.failed is None, self.failed


def well(agent: Agent) -> bool:
    """Say whether an agent's health note says that all registries are in sync."""
    for file in Path(f"/proc/{agent.pid}/fd").iterdir():
        if str(file.readlink()).startswith(f"/memfd:{NAME} "):
            return problems(file.read_text(errors="replace"), time.monotonic()) == []
    return False


@pytest.mark.parametrize("ttl", [(), ("-ttl", "30", "-ttl-refresh", "10")], ids=["", "ttl"])
def test_every_registry_moves_over_and_back_without_a_gap(
    clean_engine: Dockerd, consul: Consul, etcd: Etcd, zookeeper: ZooKeeper, agent: RunAgent,
    release: Mapping[str, str], tmp_path: Path, ttl: tuple[str, ...],
) -> None:  # fmt: skip
    api = clean_engine.api
    with client(zookeeper) as reader:
        registries = Registries(consul, etcd, zookeeper, reader, tmp_path / "services.json")

        def start(environ: Mapping[str, str]) -> Agent:
            words = (*ttl, "-resync", "2", "-ip", IP, "-hostname", "h", *registries.uris())
            run = agent(*words, environ=environ)
            until(lambda: well(run), run.tail, ignore=(OSError,))
            return run

        def everywhere(number: int) -> bool:
            return {len(found) for found in registries.names().values()} == {number}

        def becomes(number: int, run: Agent) -> None:
            until(lambda: everywhere(number), lambda: f"{registries.names()} {run.tail()}")

        api.run("web1", publish_all=True, env={"SERVICE_TAGS": "b,a", "SERVICE_TIER": "gold"})
        api.run("own", publish_all=True, env={"SERVICE_ID": "my-own", "SERVICE_NAME": "db"})
        first = start(release)
        becomes(2, first)
        watch, births = Watch(registries.names, registries.names()), registries.births()
        api.run("gone", publish_all=True)
        becomes(3, first)
        assert registries.hosts() == {""}, "version 1.0.0 wrote them"
        watch.start()
        first.stop()
        api.remove("gone")

        second = start({})
        becomes(2, second)
        assert registries.hosts() == {"h"}
        second.stop()
        before = registries.writes()
        if ttl:  # A new process has a new session in Consul, and takes the keys over.
            del before["consulkv"]
        third = start({})
        assert registries.writes() | before == registries.writes()
        third.stop()

        last = start(release)
        until(lambda: registries.hosts() == {""}, last.tail)
        api.run("late", publish_all=True)
        becomes(3, last)
        api.remove("late")
        becomes(2, last)
        watch.stop()
        assert watch.missing == set()
        assert registries.births() == births
        api.remove("own")
        becomes(1, last)
