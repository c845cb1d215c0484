"""A real Prometheus scrapes an agent on a real engine."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.agent import Agent
from support.engine import Dockerd
from support.process import Process
from support.servers import Consul, free_ports, loopback_ip, program
from support.wait import until

RunAgent = Callable[..., Agent]


class Prometheus:
    """A Prometheus that scrapes one address every second."""

    def __init__(self, folder: Path, target: str) -> None:
        ip = loopback_ip()
        (port,) = free_ports(ip, 1)
        self._url = f"http://{ip}:{port}/api/v1/query"
        config = folder / "prometheus.yml"
        job = {"job_name": "registrator", "static_configs": [{"targets": [target]}]}
        times = {"scrape_interval": "1s"}
        config.write_text(json.dumps({"global": times, "scrape_configs": [job]}))
        command = [
            program("prometheus", package="prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={ip}:{port}",
        ]
        self.process = Process("prometheus", folder, command)

    def value(self, query: str) -> float | None:
        """The only value that a query gives, or None."""
        url = f"{self._url}?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            result = json.load(answer)["data"]["result"]
        return float(result[0]["value"][1]) if len(result) == 1 else None

    def wait(self, query: str, value: float) -> None:
        until(
            lambda: self.value(query) == value,
            lambda: f"{query} to be {value}: {self.process.tail()}",
            ignore=(OSError, ValueError),
        )


@pytest.fixture
def target() -> str:
    ip = loopback_ip()
    return f"{ip}:{free_ports(ip, 1)[0]}"


@pytest.fixture
def prometheus(tmp_path: Path, target: str) -> Iterator[Prometheus]:
    made = Prometheus(tmp_path, target)
    made.process.launch()
    yield made
    made.process.stop()


def test_it_sees_services_come_and_a_registry_go(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, prometheus: Prometheus, target: str
) -> None:
    agent("-ip", "127.10.0.1", "-hostname", "h", "-http", target, f"consul://{consul.address}")
    prometheus.wait("registrator_registry_in_sync", 1)
    clean_engine.api.run("web", publish_all=True)
    clean_engine.api.run("hidden")
    prometheus.wait('registrator_registry_entries{state="registered"}', 1)
    prometheus.wait('registrator_ports{outcome="not_published"}', 1)
    prometheus.wait('registrator_containers{state="running"}', 2)
    prometheus.wait('registrator_engine_events_total{action="start"}', 2)
    prometheus.wait('registrator_registry_writes_total{operation="register",cause="change"}', 1)
    prometheus.wait("registrator_event_to_visible_seconds_count", 1)
    prometheus.wait("up", 1)
    consul.stop()
    clean_engine.api.run("late", publish_all=True)
    prometheus.wait("registrator_registry_up", 0)
    prometheus.wait("registrator_registry_divergence_seconds > bool 0", 1)
    prometheus.wait('registrator_registry_entries{state="pending"}', 1)
    consul.start()
    prometheus.wait("registrator_registry_up", 1)
    prometheus.wait("registrator_registry_divergence_seconds", 0)
    prometheus.wait("registrator_event_to_visible_seconds_count", 2)
