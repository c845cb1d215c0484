"""The records of gliderlabs/registrator, on a real engine and real registries.

``parity/cases.json`` holds containers and options, ``parity/golden.json`` what the original wrote
for them. What a drop-in replacement must match is compared. What it may add is not.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from support.agent import Agent
from support.consul import clear
from support.engine import Dockerd
from support.etcd import ctl, keys
from support.proxy import RecordingHTTPProxy
from support.servers import Consul, Etcd, ZooKeeper
from support.wait import until

from registrator.backends.etcd.skydns import label

FOLDER = Path(__file__).parent
DOCUMENT = json.loads((FOLDER / "cases.json").read_text())
GOLDEN: dict[str, dict[str, Any]] = json.loads((FOLDER / "golden.json").read_text())
ADDRESS = "127.10.20.30"
PREFIX = "parity"

GROUPS: dict[tuple[str, ...], list[dict[str, Any]]] = {}
for _case in DOCUMENT["cases"]:
    GROUPS.setdefault(tuple(_case.get("options", ())), []).append(_case)

# Two services on one address and port: the original has one node for both, we have one each. And
# on the host's network the recorder could not tell by the hostname whose the node was.
ZOOKEEPER_ADDS: dict[str, dict[str, Any]] = {
    "udp-and-tcp": {
        f"/services/dns-53/{ADDRESS}:20095:udp": {
            "body": {"Name": "dns-53", "PublicPort": 20095, "PrivatePort": 53, "Tags": ["udp"]},
            "ephemeral": True,
        }
    },
    "host-network": {
        f"/services/one/{ADDRESS}:80": {
            "body": {"Name": "one", "PublicPort": 80, "PrivatePort": 80, "Tags": []},
            "ephemeral": True,
        }
    },
}
BACKENDS = ("consul", "consulkv", "zookeeper", "etcd", "skydns2")


@pytest.fixture(scope="module")
def images(engine: Dockerd) -> Iterator[Dockerd]:
    """The engine, with the images of the cases."""
    import_images(engine)
    yield engine
    engine.api.clear()


def import_images(engine: Dockerd) -> None:
    """Make the images of the cases."""
    for image in DOCUMENT["images"].values():
        env = dict(pair.split("=", 1) for pair in image.get("env", ()))
        engine.api.import_image(image["repo"], expose=image["expose"], env=env)


def run(engine: Dockerd, case: dict[str, Any]) -> dict[str, Any]:
    """Start a case's container. Returns all that the engine says of it."""
    repo: str = DOCUMENT["images"][case["image"]]["repo"]
    ports = {
        port if "/" in port else f"{port}/tcp": ("0.0.0.0", number)
        for port, number in case.get("ports", {}).items()
    }
    container_id = engine.api.run(
        f"par-{case['name']}",
        repo,
        ports=ports,
        env=case.get("env"),
        labels=case.get("labels"),
        network=case.get("network_mode", "bridge"),
        publish_all=case.get("publish_all", False),
    )
    return engine.api.inspect(container_id)


def golden(name: str, backend: str) -> dict[str, Any]:
    """The records of a case. In etcd they are the keys of Consul's store after a slash."""
    if backend in ("etcd", "skydns2"):
        return {f"/{key}": value for key, value in GOLDEN[name]["consulkv"].items()}
    added = ZOOKEEPER_ADDS.get(name, {}) if backend == "zookeeper" else {}
    return {**GOLDEN[name][backend], **added}


def in_dns(key: str, address: str) -> tuple[str, dict[str, Any]]:
    """SkyDNS's key and value for those of etcd."""
    _, _, name, service_id = key.split("/")
    host, _, port = address.rpartition(":")
    path = f"/skydns/local/cluster/{label(name)}/{label(service_id)}"
    return path, {"host": host, "port": int(port)}


def expected(case: dict[str, Any], inspected: dict[str, Any], backend: str) -> dict[str, Any]:
    """The golden records with this run's host, ids, addresses and ports."""
    settings = inspected["NetworkSettings"]
    facts: dict[str, Any] = {
        "host": socket.gethostname(),
        "container-id": inspected["Id"][:12],
        "container-ip": settings["Networks"].get("bridge", {}).get("IPAddress", ""),
    }
    for port, bound in settings["Ports"].items():
        for row in (row for row in bound or () if ":" not in row["HostIp"]):
            facts[f"host-port-{port.partition('/')[0]}"] = int(row["HostPort"])

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {filled(key): filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [filled(item) for item in value]
        if isinstance(value, str):
            if re.fullmatch(r"\{[\w-]+\}", value):
                return facts[value[1:-1]]
            return re.sub(r"\{([\w-]+)\}", lambda match: str(facts[match[1]]), value)
        return value

    found: dict[str, Any] = filled(golden(case["name"], backend))
    return dict(in_dns(*each) for each in found.items()) if backend == "skydns2" else found


def covers(got: Any, want: Any) -> bool:
    """Whether `got` has all of `want`. Dictionaries may hold more, lists count as sets."""
    if isinstance(want, dict):
        return all(key in got and covers(got[key], item) for key, item in want.items())
    if isinstance(want, list):
        return sorted(got or ()) == sorted(want)
    return bool(got == want)


def consul_records(consul: Consul, proxy: RecordingHTTPProxy) -> dict[str, Any]:
    """The services in Consul, each with the check that it was registered with."""
    checks = {}
    for request in proxy.requests:
        if request.path.startswith("/v1/agent/service/register"):
            body = {key.lower(): value for key, value in json.loads(request.body).items()}
            # The original sends its only check alone. Consul makes the same of it.
            sent: dict[str, Any] = next(iter(body["checks"]), {})
            checks[body["id"]] = {key.lower().replace("_", ""): v for key, v in sent.items()}
    return {
        service_id: {
            "name": s["Service"],
            "tags": s["Tags"],
            "port": s["Port"],
            "address": s["Address"],
            "meta": s["Meta"],
            "check": checks[service_id],
            "accepted": True,
        }
        for service_id, s in consul.api("agent/services").items()
    }


def kv_records(consul: Consul) -> dict[str, str]:
    """The keys in Consul's key-value store that readers list."""
    url = f"http://{consul.address}/v1/kv/services/?recurse"
    with urllib.request.urlopen(url, timeout=60) as answer:
        rows = json.load(answer)
    return {row["Key"]: base64.b64decode(row["Value"] or "").decode() for row in rows}


def zookeeper_records(client: KazooClient) -> dict[str, Any]:
    """The nodes in ZooKeeper, by path."""
    found = {}
    for name in client.get_children(f"/{PREFIX}"):
        for child in client.get_children(f"/{PREFIX}/{name}"):
            data, stat = client.get(f"/{PREFIX}/{name}/{child}")
            record = {"body": json.loads(data), "ephemeral": bool(stat.ephemeralOwner)}
            found[f"/services/{name}/{child}"] = record
    return found


def etcd_records(etcd: Etcd) -> dict[str, dict[str, Any]]:
    """The keys in etcd, by layout."""
    dns = keys(etcd, "/skydns/local/cluster/")
    values = {key: json.loads(value) for key, value in dns.items()}
    return {"etcd": dict(keys(etcd, "/services/")), "skydns2": values}


@pytest.mark.parametrize("options", GROUPS, ids=lambda options: " ".join(options) or "none")
def test_the_originals_records(
    options: tuple[str, ...],
    images: Dockerd,
    consul: Consul,
    zookeeper: ZooKeeper,
    etcd: Etcd,
    tmp_path: Path,
) -> None:
    cases = GROUPS[options]
    inspected = {case["name"]: run(images, case) for case in cases}
    proxy = RecordingHTTPProxy(consul.address)
    client = KazooClient(zookeeper.address)
    client.start(10)
    uris = [
        f"consul://{proxy.address}",
        f"consulkv://{consul.address}/services",
        f"zookeeper://{zookeeper.address}/{PREFIX}",
        f"etcd://{etcd.address}/services",
        f"skydns2://{etcd.address}/cluster.local",
    ]
    agent = Agent(tmp_path, ["-ip", ADDRESS, *options, *uris], images.host)
    want = {
        backend: {case["name"]: expected(case, inspected[case["name"]], backend) for case in cases}
        for backend in BACKENDS
    }
    try:
        agent.start()
        compare(want, consul, proxy, client, etcd)
    finally:
        agent.kill()
        images.api.clear()
        empty(consul, client, etcd)
        proxy.close()


def compare(
    want: dict[str, dict[str, Any]],
    consul: Consul,
    proxy: RecordingHTTPProxy,
    client: KazooClient,
    etcd: Etcd,
) -> None:
    """Wait until as many records stand as should, then look at each."""
    number = {backend: sum(map(len, cases.values())) for backend, cases in want.items()}
    until(lambda: len(consul.api("agent/services")) >= number["consul"], "services in Consul")
    until(
        lambda: len(kv_records(consul)) >= number["consulkv"], "keys in Consul", ignore=(OSError,)
    )
    until(
        lambda: len(zookeeper_records(client)) >= number["zookeeper"],
        "nodes in ZooKeeper",
        ignore=(Exception,),
    )
    until(
        lambda: all(len(found) >= number[layout] for layout, found in etcd_records(etcd).items()),
        "keys in etcd",
    )
    got = {
        **etcd_records(etcd),
        "consul": consul_records(consul, proxy),
        "consulkv": kv_records(consul),
        "zookeeper": zookeeper_records(client),
    }
    for backend, cases in want.items():
        left = dict(got[backend])
        for name, records in cases.items():
            for key, record in records.items():
                assert key in left, f"{backend}: {key} of {name} is missing"
                assert covers(left.pop(key), record), (backend, name, got[backend][key], record)
        assert not left, f"{backend} has more than the original"


def empty(consul: Consul, client: KazooClient, etcd: Etcd) -> None:
    """Leave the registries empty for the next."""
    clear(consul)
    for place in ("/services/", "/skydns/local/cluster/"):
        ctl(etcd, "del", "--prefix", place)
    client.delete(f"/{PREFIX}", recursive=True)
    client.stop()
    client.close()
