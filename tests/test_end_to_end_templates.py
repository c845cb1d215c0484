"""Templates on a real engine and a real Consul: tags and names, errors, changes and resyncs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import Agent
from support.engine import Dockerd
from support.proxy import RecordingHTTPProxy
from support.servers import Consul
from support.wait import until

RunAgent = Callable[..., Agent]
IP = "127.10.0.1"
TAGS = (
    '{{ with index .Config.Labels "zone" }}zone={{ . }},{{ end }}'
    '{{ matchFirstElement "^COLOR=" .Config.Env | toLower }},'
    "{{ range $port, $all := .NetworkSettings.Ports }}{{ $port.Port }}+{{ end }},{{ .Name }}"
)


@pytest.fixture
def proxy(consul: Consul) -> Iterator[RecordingHTTPProxy]:
    """The way to Consul, which counts what is written."""
    made = RecordingHTTPProxy(consul.address)
    yield made
    made.close()


def held(consul: Consul) -> dict[str, tuple[str, list[str]]]:
    """Name and tags of what Consul holds, by id."""
    services: dict[str, Any] = consul.api("agent/services")
    return {key: (each["Service"], each["Tags"]) for key, each in services.items()}


def words(proxy: RecordingHTTPProxy, *more: str, resync: str = "0") -> list[str]:
    return ["-ip", IP, "-hostname", "h", "-resync", resync, *more, f"consul://{proxy.address}"]


def test_tags_in_use_after_a_change_and_after_a_restart(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, proxy: RecordingHTTPProxy
) -> None:
    run = agent(*words(proxy, "-tags", TAGS, resync="0.2"))
    api = clean_engine.api
    api.run("full", publish_all=True, labels={"zone": "b"},
            env={"COLOR": "Blue", "SERVICE_TAGS": "own,{{ .ID }}"})  # fmt: skip
    two = api.run("two", "two", publish_all=True)
    expected = {
        "h:full:80": ("web", ["own", "{{ .ID }}", "zone=b", "color=blue", "80+", "/full"]),
        "h:two:80": ("two-80", ["443+80+", "/two"]),
        "h:two:443": ("two-443", ["443+80+", "/two"]),
    }
    until(lambda: held(consul) == expected, lambda: str(held(consul)))

    api.rename(two, "other")
    changed = {
        "h:full:80": expected["h:full:80"],
        "h:other:80": ("two-80", ["443+80+", "/other"]),
        "h:other:443": ("two-443", ["443+80+", "/other"]),
    }
    until(lambda: held(consul) == changed, lambda: str(held(consul)))
    api.remove("full")
    api.run("full", publish_all=True, labels={"zone": "c,d"})
    changed["h:full:80"] = ("web", ["zone=c", "d", "80+", "/full"])
    until(lambda: held(consul) == changed, lambda: str(held(consul)))

    writes_nothing(proxy)
    run.kill()
    agent(*words(proxy, "-tags", TAGS, resync="0.2"))
    writes_nothing(proxy)
    assert held(consul) == changed


def writes_nothing(proxy: RecordingHTTPProxy) -> None:
    """Wait for five more listings. Nothing is written meanwhile."""

    def listings() -> int:
        return sum("agent/services" in request.path for request in proxy.requests)

    before, written = listings(), len(proxy.writes)
    until(lambda: listings() >= before + 5, "five resyncs")
    assert proxy.writes[written:] == []


def test_an_error_leaves_out_one_container(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, proxy: RecordingHTTPProxy
) -> None:
    template = '{{ splitIndex 1 "=" (index .Config.Env 0) }},{{ .Config.Labels.zone | toUpper }}'
    clean_engine.api.run("good", publish_all=True, labels={"zone": "b"}, env={"A": "1"})
    clean_engine.api.run("bad", "two", publish_all=True, env={"A": "1"})
    run = agent(*words(proxy, "-tags", template, resync="0.2"))
    until(lambda: held(consul) == {"h:good:80": ("web", ["1", "B"])}, lambda: str(held(consul)))
    run.wait_log("container bad ")
    writes_nothing(proxy)
    lines = [line for line in run.log.splitlines() if "cannot be evaluated" in line]
    assert len(lines) == 1, run.log
    assert "WARN" in lines[0]
    assert "container bad (" in lines[0]
    assert "443/tcp, 80/tcp: -tags cannot be evaluated for it: line 1, column " in lines[0].replace(
        "80/tcp, 443/tcp", "443/tcp, 80/tcp"
    )
    clean_engine.api.run("next", publish_all=True, labels={"zone": "c"}, env={"A": "2"})
    until(lambda: held(consul).keys() == {"h:good:80", "h:next:80"}, lambda: str(held(consul)))


@pytest.mark.parametrize("words", [["-tags", "{{ nope }}"], ["-name", '{{ httpGet "u" }}']])
def test_a_mistake_ends_the_agent_at_its_start(words: list[str], tmp_path: Path) -> None:
    run = Agent(tmp_path / "agent", [*words, "consul://127.99.99.99:1"], "unix:///nowhere")
    run.launch()
    assert run.exited() == 2
    assert f"{words[0]} is no template: line 1, column 4: " in run.log


def test_names_in_use_after_a_change_and_after_a_restart(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, proxy: RecordingHTTPProxy
) -> None:
    template = '{{ index .Config.Labels "app" }}'
    api = clean_engine.api
    run = agent(*words(proxy, "-name", template, resync="0.2"))
    api.run("one", publish_all=True, labels={"app": "shop"})
    api.run("two", "two", publish_all=True, labels={"app": "blog"})
    api.run("none", publish_all=True)
    api.run("named", publish_all=True, labels={"app": "shop"}, env={"SERVICE_NAME": "own"})
    api.run("wrong", publish_all=True, labels={"app": "../x"})
    names = {
        "h:one:80": "shop", "h:two:80": "blog-80", "h:two:443": "blog-443", "h:none:80": "web",
        "h:named:80": "own",
    }  # fmt: skip

    def is_held(expected: dict[str, str]) -> bool:
        return {key: name for key, (name, _) in held(consul).items()} == expected

    until(lambda: is_held(names), lambda: str(held(consul)))
    run.wait_log("container wrong .*-name has a path segment")
    api.remove("one")
    api.run("one", publish_all=True, labels={"app": "store"})
    names["h:one:80"] = "store"
    until(lambda: is_held(names), lambda: str(held(consul)))
    writes_nothing(proxy)
    run.kill()
    agent(*words(proxy, "-name", template, resync="0.2"))
    writes_nothing(proxy)
    assert is_held(names)


def test_an_image_by_its_id(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, proxy: RecordingHTTPProxy
) -> None:
    image = clean_engine.api.inspect(clean_engine.api.run("web1", publish_all=True))["Image"]
    clean_engine.api.run("bare", image, publish_all=True)
    clean_engine.api.run(
        "shop_1", image, publish_all=True, labels={"com.docker.compose.service": "shop"}
    )
    agent(*words(proxy))
    names = {"h:web1:80": "web", "h:bare:80": "bare", "h:shop_1:80": "shop"}
    until(
        lambda: {key: name for key, (name, _) in held(consul).items()} == names,
        lambda: str(held(consul)),
    )
