"""A real Prometheus scrapes an agent on a real engine."""

from __future__ import annotations

import json
import re
import signal
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


ALERTS = Path(__file__).resolve().parents[1] / "monitoring/alerts.yml"


def shortened(rules: str) -> str:
    """The rules with windows of a few seconds."""
    return re.sub(r"for: \d+m", "for: 1s", re.sub(r"\[\d+m\]", "[4s]", rules))


class Prometheus:
    """A Prometheus that scrapes one address every second, with the rules in short windows."""

    def __init__(self, folder: Path, target: str) -> None:
        rules = folder / "alerts.yml"
        rules.write_text(shortened(ALERTS.read_text()))
        ip = loopback_ip()
        (port,) = free_ports(ip, 1)
        self._url = f"http://{ip}:{port}/api/v1/query"
        config = folder / "prometheus.yml"
        job = {"job_name": "registrator", "static_configs": [{"targets": [target]}]}
        times = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config.write_text(
            json.dumps({"global": times, "scrape_configs": [job], "rule_files": [str(rules)]})
        )
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

    def fires(self, *alerts: str) -> None:
        """Wait until exactly these alerts fire."""
        url = self._url.replace("query", "alerts")

        def firing() -> set[str]:
            with urllib.request.urlopen(url, timeout=60) as answer:
                found = json.load(answer)["data"]["alerts"]
            return {each["labels"]["alertname"] for each in found if each["state"] == "firing"}

        until(
            lambda: firing() == set(alerts),
            lambda: f"the alerts {alerts}, and not {firing()}",
            ignore=(OSError, ValueError),
        )

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


def test_alerts_fire_at_their_faults_and_end_after_them(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, prometheus: Prometheus, target: str
) -> None:
    run = agent("-ip", "127.10.0.1", "-http", target, f"consul://{consul.address}")
    prometheus.wait("registrator_registry_in_sync", 1)
    prometheus.fires()
    bad = clean_engine.api.run("bad", publish_all=True, env={"SERVICE_NAME": ".."})
    prometheus.fires("RegistratorNotRegistered")
    clean_engine.api.kill(bad)
    prometheus.fires()
    consul.stop()
    prometheus.fires("RegistratorRegistryDown")
    consul.start()
    prometheus.fires()
    run.signal(signal.SIGTERM)
    assert run.exited() == 0
    prometheus.fires("RegistratorDown")
