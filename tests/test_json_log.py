"""The log in JSON of an agent on a real engine and a real Consul: its events, and one trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.agent import Agent
from support.consul import put
from support.engine import Dockerd
from support.proxy import TCPProxy
from support.servers import Consul
from support.wait import until

RunAgent = Callable[..., Agent]
Line = dict[str, Any]
WORDS = ("-ip", "127.10.0.1", "-hostname", "h", "-log-format", "json", "-log-level", "debug")
LOOP = ("sh", "-c", "sleep 0.1; exit 1")

# Every line has these.
ALWAYS = {"time", "level", "logger", "message"}
OF_CONTAINER = {"container", "container_id"}
OF_REGISTRY = {"registry", "server"}
OF_SERVICE = {"service", "service_id", "address", "port", *OF_CONTAINER}
WRITTEN = {*OF_REGISTRY, *OF_SERVICE, "duration_seconds", "latency_seconds"}


def lines(agent: Agent) -> list[Line]:
    """The lines of the log so far, but for one that is being written."""
    return [json.loads(line) for line in agent.log.rpartition("\n")[0].splitlines()]


def wait(agent: Agent, event: str, **facts: Any) -> Line:
    """Wait for the first line about an event with these facts."""
    wanted = facts | {"event": event}

    def found() -> Line | None:
        return next((line for line in lines(agent) if wanted.items() <= line.items()), None)

    return until(found, lambda: f"{wanted}; {agent.tail()}")


def keys(line: Line) -> set[str]:
    """The keys that not every line has."""
    assert line.keys() >= ALWAYS
    return line.keys() - ALWAYS - {"event"}


@pytest.fixture
def door(consul: Consul) -> Iterator[TCPProxy]:
    """Another address of the Consul agent."""
    made = TCPProxy(consul.address)
    yield made
    made.close()


def test_each_event_has_its_keys(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, door: TCPProxy
) -> None:
    api = clean_engine.api
    put(consul, "agent/service/register", {"ID": "other", "Name": "a", "Address": "127.9.9.9"})
    # With a longer timeout a busy machine moves no agent.
    rest = f"{door.address},{consul.address}?timeout=60"
    made, name = agent(*WORDS, f"consul://s3cret@{rest}"), f"consul://***@{rest}"
    it = api.run("it", publish_all=True)
    line = wait(made, "registered", container_id=it)
    assert keys(line) == WRITTEN
    assert line == line | {
        "registry": name, "server": door.address, "service": "web", "service_id": "h:it:80",
        "container": "it", "address": "127.10.0.1", "port": api.host_port("it"), "level": "info",
    }  # fmt: skip
    assert 0 < line["duration_seconds"] < line["latency_seconds"]
    api.kill("it")
    assert keys(wait(made, "removed", container_id=it, service_id="h:it:80")) == WRITTEN
    check_ports_left_out(clean_engine, made, name)
    loop = api.run("loop", publish_all=True, command=LOOP, restart="always")
    line = wait(made, "restart_loop", container_id=loop, reason="restart_loop")
    assert keys(line) | OF_CONTAINER == {*OF_CONTAINER, "reason"}
    api.remove("loop")
    check_outages(clean_engine, consul, made, door, name)
    assert "s3cret" not in made.log


def check_ports_left_out(engine: Dockerd, agent: Agent, registry: str) -> None:
    """Each event about a port that is not registered."""
    api, same = engine.api, {"SERVICE_ID": "same"}
    hidden = api.run("hidden")
    line = wait(agent, "left_out", container_id=hidden, reason="not_published", container="hidden")
    assert keys(line) == {*OF_CONTAINER, "port", "reason"}
    assert (line["port"], line["level"]) == (80, "debug")
    line = wait(agent, "left_out", container_id=api.run("two", "two"), reason="not_published")
    assert keys(line) == {*OF_CONTAINER, "reason"}, "it is about two ports"
    bad = api.run("bad", publish_all=True, env={"SERVICE_NAME": ".."})
    line = wait(agent, "rejected", container_id=bad, reason="rejected", port=80)
    assert keys(line) == {*OF_CONTAINER, "port", "reason"}
    refused = api.run("refused", publish_all=True, env={"SERVICE_ID": "registrator:x"})
    line = wait(agent, "rejected", container_id=refused, reason="refused", registry=registry)
    assert keys(line) == {*OF_REGISTRY, *OF_SERVICE, "reason"}
    taken = api.run("taken", publish_all=True, env={"SERVICE_ID": "other"})
    line = wait(agent, "conflict", container_id=taken, reason="others_entry", registry=registry)
    assert keys(line) == {*OF_REGISTRY, *OF_SERVICE, "reason"}
    first = api.run("first", publish_all=True, env=same)
    api.run("second", publish_all=True, env=same)
    line = wait(agent, "claimed", container_id=first, reason="same_id", port=80)
    assert keys(line) == {*OF_CONTAINER, "port", "reason"}


def check_outages(
    engine: Dockerd, consul: Consul, agent: Agent, door: TCPProxy, registry: str
) -> None:
    """A server goes, then the whole registry, then the engine."""
    door.close()
    moved = wait(agent, "server_moved", registry=registry, server=consul.address)
    assert keys(moved) == {*OF_REGISTRY, "attempt"}
    consul.stop()
    began = wait(agent, "outage_began", registry=registry, attempt=1)
    assert keys(began) == {*OF_REGISTRY, "attempt"}
    consul.start()
    until(lambda: lines(agent)[-1] and ended(agent, began), agent.tail)
    over = ended(agent, began)
    assert keys(over) == {*OF_REGISTRY, "attempt", "duration_seconds"}
    assert over["duration_seconds"] > 0
    engine.kill()
    away = wait(agent, "engine_away", attempt=1)
    assert keys(away) == {"attempt"}
    engine.start()
    assert keys(wait(agent, "engine_back")) == {"attempt", "duration_seconds"}


def ended(agent: Agent, began: Line) -> Line:
    """The end of an outage, or an empty line."""
    later = (line for line in lines(agent) if line["time"] >= began["time"])
    return next((line for line in later if line.get("event") == "outage_over"), {})


def test_one_grep_for_a_container_is_its_trace(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    api, uri = clean_engine.api, f"consul://{consul.address}"
    made = agent(*WORDS, uri)
    until(lambda: "connected to" in made.log, made.tail)
    it = api.run("it", publish_all=True)
    api.run("another", publish_all=True)
    wait(made, "registered", container_id=it)
    api.kill("it")
    wait(made, "removed", container_id=it)
    trace = [line["message"] for line in lines(made) if line.get("container_id") == it]
    stages = [
        f"container {it[:12]}: event start",
        f"container {it[:12]} is inspected: it runs",
        f"container {it[:12]}: services desired: 1, ports left out: 0",
        f"{uri}: h:it:80 is to be registered",
        f"{uri}: registered web as h:it:80 at 127.10.0.1:",
        f"container {it[:12]}: event die",
        f"container {it[:12]}: no services are desired any more",
        f"{uri}: h:it:80 is to be removed",
        f"{uri}: removed h:it:80",
    ]
    seen = iter(trace)
    missing = [stage for stage in stages if not any(each.startswith(stage) for each in seen)]
    assert missing == [], "\n".join(trace)
    greps = [line for line in made.log.splitlines() if f'"container_id": "{it}"' in line]
    assert len(greps) == len(trace)
