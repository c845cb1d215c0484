"""Docker's health checks on a real engine, with a real Consul and a file beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from support.agent import Agent
from support.engine import Dockerd
from support.proxy import RecordingHTTPProxy
from support.servers import Consul
from support.wait import until

RunAgent = Callable[..., Agent]
CHECK = "registrator-health:h:web:80"
PROBE = "test -f /ok"


def words(*more: str, resync: str = "0.5") -> list[str]:
    return ["-ip", "127.10.0.1", "-hostname", "h", "-resync", resync, "-health", *more]


def status(consul: Consul) -> str:
    """The status of the check of the container's health."""
    return str(consul.api("agent/checks").get(CHECK, {}).get("Status"))


def in_file(path: Path) -> bool:
    return path.exists() and "127.10.0.1" in path.read_text()


def passes(engine: Dockerd) -> None:
    engine.api.execute("web", "sh", "-c", "echo > /ok")


def fails(engine: Dockerd) -> None:
    engine.api.execute("web", "busybox", "rm", "/ok")


def test_the_health_of_a_container(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, tmp_path: Path
) -> None:
    path = tmp_path / "services.json"
    proxy = RecordingHTTPProxy(consul.address)

    def becomes(wanted: str) -> None:
        until(lambda: status(consul) == wanted, lambda: f"{wanted}: {status(consul)}")
        healthy = wanted == "passing"
        until(lambda: in_file(path) == healthy, "the file")

    try:
        options = words(f"consul://{proxy.address}", f"file://{path}")
        run = agent(*options)
        clean_engine.api.run("web", publish_all=True, health_cmd=PROBE)
        becomes("critical")
        passes(clean_engine)
        becomes("passing")
        fails(clean_engine)
        becomes("critical")
        run.kill()
        passes(clean_engine)
        until(lambda: _health(clean_engine) == "healthy", "the engine to see it")
        agent(*options)
        becomes("passing")
        # Five listings, and many probes: none of them writes.
        writes = len(proxy.writes)
        listings = sum("agent/services" in r.path for r in proxy.requests) + 5
        until(
            lambda: sum("agent/services" in r.path for r in proxy.requests) >= listings,
            "five resyncs",
        )
        assert proxy.writes[writes:] == []
    finally:
        proxy.close()


def test_a_container_opts_out(clean_engine: Dockerd, consul: Consul, agent: RunAgent) -> None:
    run = agent(*words(f"consul://{consul.address}", resync="0"))
    env = {"SERVICE_HEALTH": "false"}
    clean_engine.api.run("web", publish_all=True, health_cmd=PROBE, env=env)
    env = {"SERVICE_HEALTH": "maybe"}
    clean_engine.api.run("wrong", publish_all=True, health_cmd=PROBE, env=env)
    run.wait_log("container wrong .*SERVICE_HEALTH")
    until(lambda: consul.api("agent/services").keys() == {"h:web:80"}, "the one")
    assert CHECK not in consul.api("agent/checks")


def test_a_restart_of_the_engine_takes_no_healthy_entry_away(
    agent: RunAgent, tmp_path: Path
) -> None:
    """With live-restore an engine reads the health from its disk, or starts the checks anew."""
    path = tmp_path / "services.json"
    engine = Dockerd(tmp_path / "engine", live_restore=True)
    try:
        engine.start()
        engine.api.import_image("web", expose=[80])
        run = agent(*words(f"file://{path}", resync="0"), docker_host=engine.host)
        container = engine.api.run("web", publish_all=True, health_cmd=PROBE)
        run.wait_log("h:web:80 .* is not registered: ")
        until(lambda: _health(engine) == "unhealthy", "the first probe")
        passes(engine)
        until(lambda: in_file(path), "the file")
        engine.kill()
        _make_outdated(engine.data / "containers" / container / "config.v2.json")
        engine.start()
        run.wait_log("Docker engine: recovered")
        engine.api.run("later", publish_all=True)
        until(lambda: "h:later:80" in path.read_text(), run.tail)
        assert "h:web:80" in path.read_text()
        assert "removed h:web:80" not in run.log
    finally:
        engine.remove()


def _make_outdated(state: Path) -> None:
    """Let an engine's file say what it said before the last probe."""
    said = json.loads(state.read_text())
    health = said["State"]["Health"]
    health["Status"], health["Log"] = "unhealthy", (health["Log"] or [])[:1]
    state.write_text(json.dumps(said))


def _health(engine: Dockerd) -> str:
    return str(engine.api.inspect("web")["State"]["Health"]["Status"])
