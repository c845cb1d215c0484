"""A Consul that has too much to do for some requests: the agent as a whole, on a real engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from support.agent import Agent
from support.engine import Dockerd
from support.proxy import RecordingHTTPProxy, Request
from support.servers import Consul
from support.wait import until

RunAgent = Callable[..., Agent]


@pytest.fixture
def busy(consul: Consul) -> Iterator[RecordingHTTPProxy]:
    """A proxy that answers 429 to every third request, in the place of Consul."""
    numbers = itertools.count(1)

    def limit(_: Request) -> tuple[int, str] | None:
        return (429, "slow down") if next(numbers) % 3 == 0 else None

    made = RecordingHTTPProxy(consul.address, before=limit)
    yield made
    made.close()


def in_agent(consul: Consul) -> set[str]:
    """The names of the containers whose services the Consul agent has."""
    return {key.split(":")[1] for key in consul.api("agent/services") if key.startswith("h:")}


def in_store(consul: Consul) -> set[str]:
    """The names of the containers whose services are in the key-value store."""
    keys = consul.api("kv/?keys") if consul.api("kv/?keys&separator=/") else []
    return {key.rpartition("/")[2].split(":")[1] for key in keys if "/h:" in key}


@pytest.mark.parametrize(
    ("uri", "stands"), [("consul://{}", in_agent), ("consulkv://{}/services", in_store)]
)
def test_each_scale_is_right_although_some_requests_are_refused(
    clean_engine: Dockerd,
    consul: Consul,
    busy: RecordingHTTPProxy,
    agent: RunAgent,
    uri: str,
    stands: Callable[[Consul], set[str]],
) -> None:
    api = clean_engine.api
    words = ("-ip", "127.10.0.1", "-hostname", "h", "-resync", "0.3", uri.format(busy.address))
    names = [f"web{number}" for number in range(6)]
    for name in names:
        api.run(name, publish_all=True)
    run = agent(*words)
    until(lambda: stands(consul) == {*names}, lambda: f"all of them, not {stands(consul)}")
    for name in names[2:]:
        api.remove(name)
    until(lambda: stands(consul) == {*names[:2]}, lambda: f"two of them, not {stands(consul)}")
    run.kill()
    busy.requests.clear()
    api.run(names[2], publish_all=True)
    agent(*words)
    until(lambda: stands(consul) == {*names[:3]}, lambda: f"three of them, not {stands(consul)}")
    seen = len(busy.requests)
    until(lambda: len(busy.requests) > seen + 10, "some resyncs")
    assert stands(consul) == {*names[:3]}
    deleted = [r.path for r in busy.writes if "deregister" in r.path or r.method == "DELETE"]
    assert deleted == []
