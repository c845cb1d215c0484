"""Readers that nobody here wrote see what the agent registered, in every registry."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agent import Agent
from support.engine import Dockerd
from support.etcd import keys
from support.process import Process
from support.servers import Consul, Etcd, ZooKeeper, free_ports, loopback_ip, program
from support.wait import until

RunAgent = Callable[..., Agent]
IP = "127.10.0.1"
CLI = Path("/usr/share/zookeeper/bin/zkCli.sh")


class Scene:
    """A container that every registry has, and where they are."""

    def __init__(self, consul: Consul, etcd: Etcd, zookeeper: ZooKeeper, folder: Path) -> None:
        self.consul, self.etcd, self.zookeeper = consul, etcd, zookeeper
        self.file = folder / "services.json"
        self.port = 0

    def uris(self) -> list[str]:
        return [
            f"consul://{self.consul.address}",
            f"etcd://{self.etcd.address}/readers",
            f"skydns2://{self.etcd.address}/cluster.local",
            f"zookeeper://{self.zookeeper.address}/readers",
            f"file://{self.file}",
        ]


@pytest.fixture
def scene(
    clean_engine: Dockerd,
    agent: RunAgent,
    consul: Consul,
    etcd: Etcd,
    zookeeper: ZooKeeper,
    tmp_path: Path,
) -> Scene:
    made = Scene(consul, etcd, zookeeper, tmp_path)
    env = {"SERVICE_NAME": "readme", "SERVICE_TAGS": "blue,eu", "SERVICE_TIER": "gold"}
    made.port = clean_engine.api.host_port(clean_engine.api.run("web1", publish_all=True, env=env))
    run = agent("-ip", IP, "-hostname", "h", *made.uris())
    until(lambda: run.log.count(": registered readme") == 5, run.tail)
    return made


def test_zookeepers_own_shell(scene: Scene) -> None:
    assert CLI.exists(), CLI
    path = f"/readers/readme/{IP}:{scene.port}"
    done = subprocess.run(
        ["sh", str(CLI), "-server", scene.zookeeper.address, "get", "-s", path],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    line = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    body = json.loads(line)
    assert list(body)[:7] == [
        "Name", "IP", "PublicPort", "PrivatePort", "ContainerID", "Tags", "Attrs",
    ]  # fmt: skip
    assert (body["IP"], body["PublicPort"], body["ID"]) == (IP, scene.port, "h:web1:80")
    assert "ephemeralOwner = 0x0\n" not in done.stdout


def test_etcdctl_and_skydns(scene: Scene) -> None:
    program("etcdctl", package="etcd-client")
    assert keys(scene.etcd, "/readers/") == {"/readers/readme/h:web1:80": f"{IP}:{scene.port}"}
    # SkyDNS: the domain's labels in reverse, then the name. Host, port and TTL in JSON.
    (path, value), *more = keys(scene.etcd, "/skydns/local/cluster/readme/").items()
    assert not more
    record = {"host": IP, "port": scene.port, "ttl": 30, "host_name": "h"}
    assert json.loads(value) == record
    assert path.count("/") == 5


def test_consuls_dns_and_http(scene: Scene) -> None:
    (row,) = scene.consul.api("health/service/readme?passing")
    assert (row["Service"]["Address"], row["Service"]["Port"]) == (IP, scene.port)
    assert row["Service"]["Tags"] == ["blue", "eu"]
    asked = ["busybox", "nslookup", "-type=srv", "blue.readme.service.consul"]
    done = subprocess.run(
        [*asked, scene.consul.dns_address], capture_output=True, text=True, timeout=60
    )
    assert f" 1 1 {scene.port} " in done.stdout.replace("\t", " "), done


def test_prometheus(scene: Scene, tmp_path: Path) -> None:
    ip = loopback_ip()
    (port,) = free_ports(ip, 1)
    # Debian builds its Prometheus without consul_sd_configs.
    jobs = [{"job_name": "file", "file_sd_configs": [{"files": [str(scene.file)]}]}]
    path = tmp_path / "prometheus.yml"
    path.write_text(json.dumps({"scrape_configs": jobs}))
    command = [
        program("prometheus", package="prometheus"),
        f"--config.file={path}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address={ip}:{port}",
    ]
    server = Process("prometheus", tmp_path, command)

    def labels() -> dict[str, str]:
        url = f"http://{ip}:{port}/api/v1/targets?state=active"
        with urllib.request.urlopen(url, timeout=60) as answer:
            (target,) = json.load(answer)["data"]["activeTargets"]
        return dict(target["discoveredLabels"])

    try:
        server.launch()
        found = until(labels, server.tail, ignore=(OSError, ValueError))
    finally:
        server.stop()
    assert found["__address__"] == f"{IP}:{scene.port}"
    assert (found["service"], found["id"]) == ("readme", "h:web1:80")
    assert found["tags"] == ",blue,eu,"
