"""Several checks, weights and tags of others: on a real engine, with a real Consul."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import Agent
from support.consul import put
from support.engine import Dockerd
from support.proxy import RecordingHTTPProxy
from support.servers import Consul
from support.wait import until

RunAgent = Callable[..., Agent]
ID = "h:web:80"
THEIRS = ["theirs"]
HEAVY = {"Passing": 10, "Warning": 0}
SHARED = {"SERVICE_ENABLE_TAG_OVERRIDE": "true", "SERVICE_TAGS": "own"}


@pytest.fixture
def watched(consul: Consul) -> Iterator[RecordingHTTPProxy]:
    made = RecordingHTTPProxy(consul.address)
    yield made
    made.close()


def words(watched: RecordingHTTPProxy, *more: str, ip: str = "127.10.0.1") -> tuple[str, ...]:
    return ("-ip", ip, "-hostname", "h", "-resync", "0.3", *more, f"consul://{watched.address}")


def stands(consul: Consul) -> Any:
    """The service at the Consul agent, or None if there is none."""
    return consul.api("agent/services").get(ID)


def checks(consul: Consul) -> dict[str, str]:
    """The types of all checks of the service, by id."""
    found = consul.api("agent/checks").items()
    return {key: each["Type"] for key, each in found if each["ServiceID"] == ID}


def in_catalog(consul: Consul) -> Any:
    """The service in the catalog, or None if there is none."""
    node = consul.api(f"catalog/node/{consul.config['node_name']}")
    return node["Services"].get(ID)


def listings(watched: RecordingHTTPProxy) -> int:
    return sum("agent/services" in each.path for each in watched.requests)


def resyncs(watched: RecordingHTTPProxy) -> None:
    """Wait for some resyncs."""
    seen = listings(watched)
    until(lambda: listings(watched) > seen + 2, "some resyncs")


def writes_nothing(watched: RecordingHTTPProxy, run: Agent, restart: Callable[[], Agent]) -> Agent:
    """Let a resync go by, kill the agent and start it again: all without a write."""
    watched.requests.clear()
    resyncs(watched)
    run.kill()
    again = restart()
    resyncs(watched)
    assert watched.writes == []
    return again


def test_several_checks_and_weights(
    clean_engine: Dockerd, consul: Consul, watched: RecordingHTTPProxy, agent: RunAgent
) -> None:
    api = clean_engine.api
    env = {
        "SERVICE_WEIGHT_PASSING": "10", "SERVICE_WEIGHT_WARNING": "0", "SERVICE_CHECK_TTL": "1h",
        "SERVICE_80_CHECK_2_TCP": "1", "SERVICE_CHECK_3_HTTP": "/",
        "SERVICE_CHECK_3_INTERVAL": "1h",
    }  # fmt: skip
    api.run("web", publish_all=True, env=env)
    run = agent(*words(watched))
    three = {f"service:{ID}": "ttl", f"registrator-check-2:{ID}": "tcp",
             f"registrator-check-3:{ID}": "http"}  # fmt: skip
    until(lambda: stands(consul) and checks(consul) == three, "three checks")
    assert stands(consul)["Weights"] == HEAVY
    until(lambda: (in_catalog(consul) or {}).get("Weights") == HEAVY, "the catalog")
    run = writes_nothing(watched, run, lambda: agent(*words(watched)))
    # Somebody removes a check, and another one changes the weights.
    put(consul, f"agent/check/deregister/registrator-check-2:{ID}")
    until(lambda: checks(consul) == three, "the check again")
    same = {key: stands(consul)[key] for key in ("ID", "Address", "Port", "Tags", "Meta")}
    altered = same | {"Name": "web", "Weights": {"Passing": 2, "Warning": 0}}
    put(consul, "agent/service/register", altered)
    until(lambda: stands(consul)["Weights"]["Passing"] == 10, "the weights again")
    # Another container of that name, while no agent runs: what it does not ask for goes.
    run.kill()
    api.remove("web")
    api.run("web", publish_all=True, env={"SERVICE_CHECK_3_TTL": "1h"})
    agent(*words(watched))
    until(lambda: checks(consul) == {f"registrator-check-3:{ID}": "ttl"}, "the one check")
    until(lambda: stands(consul)["Weights"] == {"Passing": 1, "Warning": 1}, "the usual weights")


def test_keys_that_were_attributes_are_told_once_at_the_start(
    clean_engine: Dockerd, consul: Consul, watched: RecordingHTTPProxy, agent: RunAgent
) -> None:
    api = clean_engine.api
    api.run("web", publish_all=True, env={"SERVICE_WEIGHT_PASSING": "10", "SERVICE_80_NETWORK": ""})
    api.run("plain", publish_all=True, env={"SERVICE_NAME": "plain", "SERVICE_CHECK_TTL": "1h"})
    run = agent(*words(watched))
    until(lambda: stands(consul), "the service")
    api.run("later", publish_all=True, env={"SERVICE_CHECK_2_TTL": "1h"})
    until(lambda: "h:later:80" in consul.api("agent/services"), "the later one")
    resyncs(watched)
    told = [line for line in run.log.splitlines() if "settings now" in line]
    (line,) = told
    assert re.search(r"WARN.*container web .*: SERVICE_80_NETWORK, SERVICE_WEIGHT_PASSING:", line)


def test_a_wrong_value_leaves_only_its_service_out(
    clean_engine: Dockerd, consul: Consul, watched: RecordingHTTPProxy, agent: RunAgent
) -> None:
    wrong = {
        "SERVICE_WEIGHT_PASSING": "0",
        "SERVICE_ENABLE_TAG_OVERRIDE": "maybe",
        "SERVICE_CHECK_2_TIMEOUT": "15",
    }
    for number, (key, value) in enumerate(wrong.items()):
        env = {key: value, "SERVICE_CHECK_2_TCP": "1"}
        clean_engine.api.run(f"bad{number}", publish_all=True, env=env)
    clean_engine.api.run("web", publish_all=True)
    run = agent(*words(watched))
    until(lambda: stands(consul), "the good one")
    for number, key in enumerate(wrong):
        run.wait_log(rf"WARN.*\bbad{number}\b.*{key}")
    resyncs(watched)
    assert consul.api("agent/services").keys() == {ID}
    told = [line for line in run.log.splitlines() if "settings now" not in line]
    assert [len([line for line in told if key in line]) for key in wrong] == [1, 1, 1]


def tag(consul: Consul) -> None:
    """Change the tags as another tool does, in the catalog."""
    found = in_catalog(consul)
    body = {
        "Node": consul.config["node_name"], "Address": consul.ip, "SkipNodeUpdate": True,
        "Service": {**found, "Tags": THEIRS},
    }  # fmt: skip
    put(consul, "catalog/register", body)


def both_have(consul: Consul, tags: list[str]) -> bool:
    """Whether the catalog and the Consul agent have these tags."""
    here, there = stands(consul), in_catalog(consul)
    return bool(here and there) and here["Tags"] == there["Tags"] == tags


@pytest.fixture
def client(consul: Consul, tmp_path: Path) -> Iterator[Consul]:
    """A Consul agent beside a server, as on most hosts.

    A server that starts may compare itself before it has read all of its catalog. Then it writes
    its own tags over those of others. Without an agent of ours, Consul 1.8.7 did so at 3 of 100
    starts.
    """
    made = Consul(tmp_path / "client", name="client", servers=0, join=[consul.serf_address])
    made.start()
    yield made
    made.stop()
    made.remove()


@pytest.fixture
def watched_client(client: Consul) -> Iterator[RecordingHTTPProxy]:
    made = RecordingHTTPProxy(client.address)
    yield made
    made.close()


def test_tags_of_another_tool_stay(
    clean_engine: Dockerd, client: Consul, watched_client: RecordingHTTPProxy, agent: RunAgent
) -> None:
    api, watched = clean_engine.api, watched_client
    api.run("web", publish_all=True, env=SHARED)
    run = agent(*words(watched))
    until(lambda: both_have(client, ["own"]), "its own tags")
    tag(client)
    run = writes_nothing(watched, run, lambda: agent(*words(watched)))
    # A Consul agent compares itself with the catalog at its start, and then each minute.
    client.kill()
    client.start()
    until(
        lambda: both_have(client, THEIRS),
        lambda: f"{stands(client)} to have the tags of {in_catalog(client)}",
    )
    run = writes_nothing(watched, run, lambda: agent(*words(watched)))
    # Something else changes: the address, by an option, and a check, which the entry lost.
    run.kill()
    run = agent(*words(watched, ip="127.10.0.2"))
    until(lambda: stands(client)["Address"] == "127.10.0.2", "the other address")
    until(lambda: in_catalog(client)["Address"] == "127.10.0.2", "the other address")
    assert both_have(client, THEIRS)
    # The container's own tags change, while no agent runs.
    run.kill()
    api.remove("web")
    api.run("web", publish_all=True, env=SHARED | {"SERVICE_TAGS": "new"})
    agent(*words(watched, ip="127.10.0.2"))
    until(lambda: both_have(client, ["new"]), "its own new tags")


def test_without_the_key_tags_of_another_tool_go(
    clean_engine: Dockerd, consul: Consul, watched: RecordingHTTPProxy, agent: RunAgent
) -> None:
    clean_engine.api.run("web", publish_all=True, env={"SERVICE_TAGS": "own"})
    agent(*words(watched))
    until(lambda: both_have(consul, ["own"]), "its own tags")
    body = {"ID": ID, "Name": "web", "Tags": THEIRS, "Meta": stands(consul)["Meta"]}
    put(consul, "agent/service/register", body)
    until(lambda: both_have(consul, ["own"]), "its own tags again")
