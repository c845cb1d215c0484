"""Failover as the operator set it up: real agents, real clusters, and a member that dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.agent import Agent
from support.engine import Dockerd
from support.servers import Consul, consul_cluster
from support.wait import until

RunAgent = Callable[..., Agent]
IP = "127.10.0.1"
NAMES = ["web1", "web2", "web3"]


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[list[Consul], list[Consul]]]:
    """Three servers and two client agents."""
    servers, clients = consul_cluster(tmp_path_factory.mktemp("consul"), 3, 2)
    yield servers, clients
    for each in (*servers, *clients):
        each.remove()


def catalog(server: Consul) -> list[str]:
    """The ids of all instances of the service `web` that the cluster knows, doubles included."""
    return sorted(row["ServiceID"] for row in server.api("catalog/service/web?consistent"))


def test_no_copy_stays_behind_when_a_consul_agent_returns(
    clean_engine: Dockerd, cluster: tuple[list[Consul], list[Consul]], agent: RunAgent
) -> None:
    """Each round, A dies and the services move to B. A returns with its copies, which go."""
    servers, (a, b) = cluster
    for name in NAMES:
        clean_engine.api.run(name, publish_all=True)
    ids = [f"h:{name}:80" for name in NAMES]
    uri = f"consul://{a.address},{b.address}"
    agent("-ip", IP, "-hostname", "h", "-resync", "0", uri)
    until(lambda: catalog(servers[0]) == ids, "registered with A")
    for _ in range(10):
        former, current = (a, b) if a.api("agent/services") else (b, a)
        fail_over_and_back(former, current, servers[0], ids)


def fail_over_and_back(former: Consul, current: Consul, server: Consul, ids: list[str]) -> None:
    """Kill an agent, see its services move, start it, and see each once in the catalog."""
    former.kill()
    until(lambda: current.api("agent/services").keys() == set(ids), "moved")
    former.launch()
    until(lambda: former.api("agent/self"), "its return", ignore=(OSError,))
    until(
        lambda: not former.api("agent/services") and catalog(server) == ids,
        lambda: f"each once: {catalog(server)}",
    )


def test_move_return_and_restart_of_our_agent_fall_together(
    clean_engine: Dockerd, cluster: tuple[list[Consul], list[Consul]], agent: RunAgent
) -> None:
    servers, (a, b) = cluster
    clean_engine.api.run("web1", publish_all=True)
    uri = f"consul://{a.address},{b.address}"
    words = ("-ip", IP, "-hostname", "h", "-resync", "0", uri)
    first = agent(*words)
    until(lambda: catalog(servers[0]) == ["h:web1:80"], "registered")
    home = a if a.api("agent/services") else b
    other = b if home is a else a
    home.kill()
    until(lambda: other.api("agent/services").keys() == {"h:web1:80"}, "moved")
    first.kill()
    home.launch()
    agent(*words)
    until(lambda: home.api("agent/self"), "it returns", ignore=(OSError,))
    until(
        lambda: (
            catalog(servers[0]) == ["h:web1:80"]
            and len(a.api("agent/services")) + len(b.api("agent/services")) == 1
        ),
        lambda: f"once: {catalog(servers[0])}",
    )


def test_a_host_name_with_several_addresses_and_a_port_by_default(
    clean_engine: Dockerd, agent: RunAgent, tmp_path: Path
) -> None:
    """`localhost` is one or two addresses. If nothing answers at one, the next one is tried."""
    consul = Consul(tmp_path)
    consul.config["client_addr"] = f"{consul.ip} 127.0.0.1"
    try:
        consul.start()
        clean_engine.api.run("web1", publish_all=True)
        port = consul.address.partition(":")[2]
        agent("-ip", IP, "-hostname", "h", f"consul://localhost:{port}")
        until(lambda: consul.api("agent/services").keys() == {"h:web1:80"}, "registered")
    finally:
        consul.remove()
