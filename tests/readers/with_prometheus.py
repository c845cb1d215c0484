"""Prometheus, with the services of Consul and with the file that the agent writes."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from support.process import Process
from support.servers import Consul, free_ports, loopback_ip, program

from readers.documented import block, replace
from readers.following import Reader, Scene

# Seconds for which Prometheus collects changes before it takes them over.
THROTTLE = 5


class Prometheus(Reader):
    """The targets of a Prometheus with this configuration, which asks every `interval` seconds."""

    def __init__(self, folder: Path, config: str, interval: float) -> None:
        ip = loopback_ip()
        (port,) = free_ports(ip, 1)
        path = folder / "prometheus.yml"
        path.write_text(config)
        command = [
            program("prometheus", package="prometheus"),
            f"--config.file={path}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={ip}:{port}",
        ]
        self.programs = [Process("prometheus", folder, command)]
        self.period = THROTTLE + interval
        self._url = f"http://{ip}:{port}/api/v1/targets?state=active"

    def addresses(self) -> set[str]:
        with urllib.request.urlopen(self._url, timeout=60) as answer:
            targets = json.load(answer)["data"]["activeTargets"]
        return {target["discoveredLabels"]["__address__"] for target in targets}


@pytest.mark.parametrize("interval", [1, 30])
def test_services_of_consul(scene: Scene, consul: Consul, tmp_path: Path, interval: float) -> None:
    """The document sets 1 s. Prometheus's own default is 30 s."""
    config = replace(block("Prometheus", "yaml"), {"127.0.0.1:8500": consul.address})
    if interval == 30:
        config = replace(config, {"refresh_interval: 1s": ""})
    scene.follow(Prometheus(tmp_path, config, interval), f"consul://{consul.address}")


def test_the_file(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "services.json"
    documented = block("What is written", "yaml", "registries/file.md")
    config = replace(documented, {"/run/services/services.json": str(file)})
    scene.follow(Prometheus(tmp_path, config, 0), f"file://{file}")
