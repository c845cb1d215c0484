"""An agent that a real Prometheus watches, with the alert rules in short windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from support.agent import Agent
from support.prometheus import ALERTS, Prometheus, shortened
from support.servers import free_ports, loopback_ip
from support.wait import until

Watched = Callable[..., Agent]


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """One that `watched` starts."""
    ip = loopback_ip()
    target = f"{ip}:{free_ports(ip, 1)[0]}"
    made = Prometheus(tmp_path / "prometheus", target, shortened(ALERTS.read_text()))
    yield made
    made.stop()


@pytest.fixture
def watched(agent: Callable[..., Agent], prometheus: Prometheus) -> Watched:
    """Starts an agent as `agent` does, and Prometheus once all is well."""

    def run(*words: str, docker_host: str = "") -> Agent:
        own = ("-ip", "127.10.0.1", "-hostname", "h", "-http", prometheus.target)
        made = agent(*own, *words, docker_host=docker_host)
        until(
            lambda: ready(prometheus.target), lambda: f"all well: {made.tail()}", ignore=(OSError,)
        )
        prometheus.start()
        prometheus.wait("registrator_registry_in_sync", 1)
        return made

    return run


def ready(target: str) -> bool:
    """Whether the agent says that nothing is wrong. Raises `OSError` if something is."""
    with urlopen(f"http://{target}/readyz", timeout=60) as answer:
        return bool(answer.status == 200)
