"""The agent on a real Podman and a real Consul."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.agent import Agent
from support.podman import Podman
from support.servers import Consul
from support.wait import until

RunAgent = Callable[..., Agent]
IP = "127.10.0.1"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    made = Podman(tmp_path_factory.mktemp("podman"))
    try:
        made.start()
        made.api.import_image("web", expose=[80])
        yield made
    finally:
        made.remove()


@pytest.fixture
def clean_podman(podman: Podman) -> Iterator[Podman]:
    yield podman
    podman.api.clear()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Consul]:
    made = Consul(tmp_path / "consul")
    try:
        made.start()
        yield made
    finally:
        made.remove()


def words(registry: Consul, *more: str) -> list[str]:
    # No resync would find in time what an event does not tell.
    return ["-ip", IP, "-hostname", "h", "-resync", "0", *more, f"consul://{registry.address}"]


def registered(registry: Consul) -> dict[str, tuple[str, str, int]]:
    """Service ids, with their names, addresses and ports."""
    return {
        key: (each["Service"], each["Address"], each["Port"])
        for key, each in registry.api("agent/services").items()
    }


def becomes(registry: Consul, wanted: dict[str, tuple[str, str, int]], what: str) -> None:
    until(
        lambda: registered(registry) == wanted,
        lambda: f"{what}: {registered(registry)} in place of {wanted}",
    )


def published(podman: Podman, container: str) -> tuple[str, str, int]:
    """How a container's port should be registered."""
    return ("web", IP, podman.api.host_port(container))


def test_containers_come_and_go(clean_podman: Podman, registry: Consul, agent: RunAgent) -> None:
    podman = clean_podman
    podman.run("early", publish_all=True)
    agent(*words(registry), docker_host=podman.host)
    early = {"h:early:80": published(podman, "early")}
    becomes(registry, early, "start")
    late = podman.run("late", ports={"80/tcp": (IP, 0)})
    becomes(registry, early | {"h:late:80": published(podman, late)}, "run")
    podman.api.stop(late)
    becomes(registry, early, "stop")
    podman.api.start(late)
    becomes(registry, early | {"h:late:80": published(podman, late)}, "start again")
    podman.api.rename(late, "later")
    becomes(registry, early | {"h:later:80": published(podman, late)}, "rename")
    podman.api.kill(late)
    becomes(registry, early, "kill")
    podman.api.remove("early")
    becomes(registry, {}, "rm")


def test_a_killed_agent_knows_its_entries_again(
    clean_podman: Podman, registry: Consul, agent: RunAgent
) -> None:
    podman = clean_podman
    for name in ("kept", "gone"):
        podman.run(name, publish_all=True)
    first = agent(*words(registry), docker_host=podman.host)
    both = {f"h:{name}:80": published(podman, name) for name in ("kept", "gone")}
    becomes(registry, both, "start")
    first.kill()
    podman.api.remove("gone")
    podman.run("new", publish_all=True)
    agent(*words(registry, "-cleanup"), docker_host=podman.host)
    now = {f"h:{name}:80": published(podman, name) for name in ("kept", "new")}
    becomes(registry, now, "after the kill")


def test_the_service_ends_and_comes_back(
    clean_podman: Podman, registry: Consul, agent: RunAgent
) -> None:
    podman = clean_podman
    podman.run("before", publish_all=True)
    run = agent(*words(registry), docker_host=podman.host)
    wanted = {"h:before:80": published(podman, "before")}
    becomes(registry, wanted, "start")
    podman.kill_service()
    run.wait_log("recovered")
    podman.run("after", publish_all=True)
    becomes(
        registry, wanted | {"h:after:80": published(podman, "after")}, "after the service's end"
    )


def test_internal_addresses_are_the_default_networks(
    clean_podman: Podman, registry: Consul, agent: RunAgent
) -> None:
    podman = clean_podman
    podman.api.network_create("another")
    podman.run("web1")
    podman.api.network_connect("another", "web1")
    networks = podman.api.inspect("web1")["NetworkSettings"]["Networks"]
    assert networks.keys() == {"podman", "another"}
    agent(*words(registry, "-internal"), docker_host=podman.host)
    wanted = {"h:web1:80": ("web", networks["podman"]["IPAddress"], 80)}
    becomes(registry, wanted, "in two networks")
    podman.api.network_disconnect("podman", "web1")
    wanted = {"h:web1:80": ("web", networks["another"]["IPAddress"], 80)}
    becomes(registry, wanted, "out of the first network")


def test_a_container_in_anothers_network(
    clean_podman: Podman, registry: Consul, agent: RunAgent
) -> None:
    podman = clean_podman
    podman.run("first")
    podman.run("peer", network="container:first")
    address = podman.api.inspect("first")["NetworkSettings"]["IPAddress"]
    agent(*words(registry), docker_host=podman.host)
    becomes(registry, {"h:peer:80": ("web", address, 80)}, "start")
    # Podman removes nothing that others share.
    podman.api.remove("peer")
    becomes(registry, {}, "rm")


def test_an_end_counts_where_no_signal_is_told(
    clean_podman: Podman, registry: Consul, agent: RunAgent
) -> None:
    """Podman's `kill` does not say which signal it sent, so none withdraws a service."""
    podman = clean_podman
    # A first process without a handler ignores the signal.
    podman.run("web1", publish_all=True)
    agent(*words(registry, "-deregister-on-stop"), docker_host=podman.host)
    web1 = {"h:web1:80": published(podman, "web1")}
    becomes(registry, web1, "start")
    podman.api.kill("web1", "HUP")
    podman.run("later", publish_all=True)
    later = {"h:later:80": published(podman, "later")}
    becomes(registry, web1 | later, "HUP")
    podman.api.stop("web1")
    becomes(registry, later, "stop")


def test_paused_containers(clean_podman: Podman, registry: Consul, agent: RunAgent) -> None:
    podman = clean_podman
    podman.run("web1", publish_all=True)
    agent(*words(registry, "-deregister-on-pause"), docker_host=podman.host)
    web1 = {"h:web1:80": published(podman, "web1")}
    becomes(registry, web1, "start")
    podman.api.pause("web1")
    becomes(registry, {}, "pause")
    podman.api.unpause("web1")
    becomes(registry, web1, "unpause")


def test_the_health_of_a_container(clean_podman: Podman, registry: Consul, agent: RunAgent) -> None:
    podman = clean_podman

    def status() -> str:
        return str(registry.api("agent/checks").get(check, {}).get("Status"))

    def becomes_after_probes(wanted: str) -> None:
        # The event of a probe tells the health before it.
        def probed() -> bool:
            podman.probe("web1")
            return status() == wanted

        until(probed, lambda: f"{wanted}: {status()}")

    check = "registrator-health:h:web1:80"
    agent(*words(registry, "-health"), docker_host=podman.host)
    podman.run("web1", publish_all=True, health_cmd="test -f /ok")
    becomes(registry, {"h:web1:80": published(podman, "web1")}, "start")
    assert status() == "critical"
    podman.api.execute("web1", "sh", "-c", "echo > /ok")
    becomes_after_probes("passing")
    podman.api.execute("web1", "busybox", "rm", "/ok")
    becomes_after_probes("critical")
