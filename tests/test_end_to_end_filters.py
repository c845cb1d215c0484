"""Filters and `withdraw` on a real engine, with a real Consul and a file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agent import Agent
from support.engine import Dockerd
from support.proxy import RecordingHTTPProxy
from support.servers import Consul
from support.wait import until

RunAgent = Callable[..., Agent]
IP = "127.10.0.1"
WORDS = ("-ip", IP, "-hostname", "h")


def in_consul(consul: Consul) -> set[str]:
    return set(consul.api("agent/services"))


def in_file(path: Path) -> set[str]:
    groups = json.loads(path.read_text()) if path.exists() else []
    return {group["labels"]["id"] for group in groups}


def test_each_registry_has_what_its_filter_admits(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, tmp_path: Path
) -> None:
    api, path = clean_engine.api, tmp_path / "public.json"
    api.run("shop", publish_all=True, labels={"public": "yes"})
    api.run("db", publish_all=True, labels={"public": "no", "tier": "back"})
    api.run("test", publish_all=True, labels={"public": "yes"})
    uris = [f"consul://{consul.address}", f"file://{path}?filter=label=public%3Dy*"]
    run = agent(*WORDS, "-filter", "name!=test,label=public", "-log-level", "debug", *uris)
    until(lambda: in_consul(consul) == {"h:shop:80", "h:db:80"}, "Consul's")
    until(lambda: in_file(path) == {"h:shop:80"}, "the file's")
    run.wait_log(r"container test .*: not registered: the filter excludes it")
    run.wait_log(r"public\.json\S*: h:db:80 \(container db\) is not registered: the filter ex")
    # A name changes while a container runs, and with it what the filter says of it.
    api.rename("test", "staging")
    until(lambda: "h:staging:80" in in_consul(consul) & in_file(path), "it counts now")
    api.rename("staging", "test")
    until(lambda: in_consul(consul) == {"h:shop:80", "h:db:80"}, "it counts no more")
    until(lambda: in_file(path) == {"h:shop:80"}, "nor in the file")
    # With another filter, what stood for the former one is dangling.
    run.kill()
    agent(*WORDS, uris[0], f"file://{path}?filter=label=tier")
    until(lambda: in_file(path) == {"h:db:80"}, "the file's")
    until(lambda: in_consul(consul) == {"h:shop:80", "h:db:80", "h:test:80"}, "all")


def test_networks_as_they_change(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, tmp_path: Path
) -> None:
    api, path = clean_engine.api, tmp_path / "front.json"
    api.network_create("front")
    api.run("web", publish_all=True)
    agent(*WORDS, f"consul://{consul.address}", f"file://{path}?filter=network=front")
    until(lambda: in_consul(consul) == {"h:web:80"}, "Consul's")
    assert in_file(path) == set()
    api.network_connect("front", "web")
    until(lambda: in_file(path) == {"h:web:80"}, "it is in the network")
    api.network_disconnect("front", "web")
    until(lambda: in_file(path) == set(), "it has left the network")
    assert in_consul(consul) == {"h:web:80"}


def test_a_resync_and_a_restart_write_nothing(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    clean_engine.api.run("shop", publish_all=True, labels={"public": ""})
    clean_engine.api.run("db", publish_all=True)
    proxy = RecordingHTTPProxy(consul.address)

    def listings() -> int:
        return sum("agent/services" in r.path for r in proxy.requests)

    uri = f"consul://{proxy.address}?filter=label=public"
    words = (*WORDS, "-filter", "image=web*", "-resync", "0.2", uri)
    try:
        first = agent(*words)
        until(lambda: in_consul(consul) == {"h:shop:80"}, "the one")
        seen = listings()
        until(lambda: listings() >= seen + 3, "some resyncs")
        first.kill()
        agent(*words)
        seen = listings()
        until(lambda: listings() >= seen + 3, "some resyncs of the next one")
        assert len(proxy.writes) == 1, proxy.writes
    finally:
        proxy.close()


def test_a_wrong_filter_ends_the_command(tmp_path: Path) -> None:
    for words in (["-filter", "public", "consul://"], [f"file://{tmp_path}/x.json?filter=public"]):
        done = command(*words)
        assert done.returncode == 2
        assert "filter must be terms such as label=KEY=VALUE" in done.stderr


def command(*words: str, docker_host: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "registrator", *words],
        env={"PATH": "/usr/bin:/bin", "DOCKER_HOST": docker_host},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_host_leaves(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, tmp_path: Path, end: signal.Signals
) -> None:
    path = tmp_path / "services.json"
    clean_engine.api.run("web1", publish_all=True)
    clean_engine.api.run("custom", publish_all=True, env={"SERVICE_ID": "my-own"})
    words = [*WORDS, f"consul://{consul.address}", f"file://{path}"]
    run = agent(*words)
    wanted = {"h:web1:80", "my-own"}
    until(lambda: in_consul(consul) == in_file(path) == wanted, "both")
    done = command("withdraw", *words, docker_host=clean_engine.host)
    assert (done.returncode, done.stdout) == (1, "")
    assert "an agent of this host runs" in done.stderr
    assert in_consul(consul) == in_file(path) == wanted
    run.signal(end)
    run.exited()
    assert in_consul(consul) == in_file(path) == wanted
    done = command("withdraw", *words, docker_host=clean_engine.host)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert sorted(lines[:-1]) == sorted(f"{u}: removed {k}" for u in words[-2:] for k in wanted)
    assert lines[-1] == "4 entries found, 4 removed, 0 left"
    assert in_consul(consul) == in_file(path) == set()


def test_what_a_former_engine_left(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, tmp_path: Path
) -> None:
    """The agent with the new id may run: it gets its places then."""
    clean_engine.api.run("web1", publish_all=True)
    path = tmp_path / "services.json"
    former = "FORM:ER"
    labels = {"id": "h:web1:80", "__meta_registrator_owner": former}
    labels |= {"__meta_registrator_host": "h"}
    path.write_text(json.dumps([{"targets": [f"{IP}:1"], "labels": labels}]))
    run = agent(*WORDS, "-resync", "0.5", f"file://{path}")
    run.wait_log("another owner holds it")
    words = ["withdraw", "-hostname", "h", "-owner", former, f"file://{path}"]
    done = command(*words)
    assert (done.returncode, former in path.read_text()) == (1, True)
    assert done.stdout == (
        f"file://{path}: h:web1:80\n1 entry of {former}: add -yes to remove them\n"
    )
    assert command(*words, "-yes").returncode == 0
    until(lambda: former not in path.read_text() and in_file(path) == {"h:web1:80"}, "its own")


def test_without_an_engine(tmp_path: Path) -> None:
    done = command("withdraw", f"file://{tmp_path}/x.json", docker_host=f"unix://{tmp_path}/none")
    assert (done.returncode, done.stdout) == (3, "")
    assert "the Docker engine does not answer" in done.stderr
    assert command("withdraw", "consul://", docker_host="x").returncode == 2
