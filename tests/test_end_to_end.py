"""The main job on a real engine and a real Consul: what runs stands there, whatever happens."""

from __future__ import annotations

import concurrent.futures
import json
import signal
from collections.abc import Callable
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
IP = "127.10.0.1"


def registered(consul: Consul) -> dict[str, tuple[str, int]]:
    """Service ids with their addresses, the agent's own excepted."""
    services: dict[str, Any] = consul.api("agent/services")
    return {key: (s["Address"], s["Port"]) for key, s in services.items()}


def running(engine: Dockerd, host: str = "h") -> dict[str, tuple[str, int]]:
    """The services that should stand there, by the engine's word."""
    wanted = {}
    for row in engine.api.containers():
        if row["State"] != "running":
            continue
        for port in row["Ports"]:
            if port.get("IP") == "0.0.0.0":
                service_id = f"{host}:{row['Names'][0][1:]}:{port['PrivatePort']}"
                wanted[service_id] = (IP, port["PublicPort"])
    return wanted


def agree(engine: Dockerd, consul: Consul, what: str) -> dict[str, Any]:
    """Wait until engine and registry agree. Returns what both hold."""

    def state() -> str:
        want, got = running(engine), registered(consul)
        return f"{what}: missing {want.keys() - got.keys()}, stale {got.keys() - want.keys()}"

    until(lambda: registered(consul) == running(engine), state, ignore=(OSError, ValueError))
    return running(engine)


def uri(consul: Consul) -> str:
    return f"consul://{consul.address}"


def words(*more: str, resync: str = "0") -> list[str]:
    """By default without resyncs, so that nothing is put right by one that should be before it."""
    return ["-ip", IP, "-hostname", "h", "-resync", resync, *more]


def test_containers_come_and_go(clean_engine: Dockerd, consul: Consul, agent: RunAgent) -> None:
    clean_engine.api.run("early", publish_all=True)
    agent(*words(uri(consul)))
    assert agree(clean_engine, consul, "start").keys() == {"h:early:80"}
    late = clean_engine.api.run("late", "two", publish_all=True, env={"SERVICE_NAME": "web"})
    assert len(agree(clean_engine, consul, "run")) == 3
    clean_engine.api.rename(late, "later")
    assert "h:later:443" in agree(clean_engine, consul, "rename")
    clean_engine.api.stop(late)
    agree(clean_engine, consul, "stop")
    clean_engine.api.start(late)
    agree(clean_engine, consul, "start again")
    clean_engine.api.remove("early")
    assert len(agree(clean_engine, consul, "remove")) == 2


@pytest.mark.parametrize("attempt", range(3))
def test_burst(attempt: int, clean_engine: Dockerd, consul: Consul, agent: RunAgent) -> None:
    """100 containers by 8 threads: none missing. All killed: none stale."""
    agent(*words(uri(consul)))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda n: clean_engine.api.run(f"b{n}", publish_all=True), range(100)))
        assert len(agree(clean_engine, consul, f"burst {attempt}")) == 100
        list(pool.map(clean_engine.api.kill, ids))
        assert agree(clean_engine, consul, f"killed {attempt}") == {}


def test_right_after_a_kill_of_the_agent(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    kept = clean_engine.api.run("kept", publish_all=True)
    custom = clean_engine.api.run("custom", publish_all=True, env={"SERVICE_ID": "my-own"})
    first = agent(*words(uri(consul)))
    until(lambda: registered(consul).keys() == {"h:kept:80", "my-own"}, "both")
    first.kill()
    clean_engine.api.remove(custom)
    clean_engine.api.run("new", publish_all=True)
    clean_engine.api.stop(kept)
    clean_engine.api.start(kept)
    agent(*words(uri(consul)))
    agree(clean_engine, consul, "after the kill")


def test_signals(clean_engine: Dockerd, consul: Consul, agent: RunAgent) -> None:
    clean_engine.api.run("web1", publish_all=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        run = agent(*words(uri(consul)))
        agree(clean_engine, consul, "start")
        put(consul, "agent/service/deregister/h:web1:80")
        run.signal(signal.SIGHUP)
        agree(clean_engine, consul, "SIGHUP")
        run.signal(number)
        assert run.exited() == 0
        assert registered(consul).keys() == {"h:web1:80"}


def test_consul_away_and_wiped(clean_engine: Dockerd, consul: Consul, agent: RunAgent) -> None:
    gone = clean_engine.api.run("gone", publish_all=True)
    run = agent(*words(uri(consul)))
    agree(clean_engine, consul, "start")
    consul.stop()
    clean_engine.api.remove(gone)
    clean_engine.api.run("new", publish_all=True)
    run.wait_log("and 10 attempts")
    consul.start()
    agree(clean_engine, consul, "Consul is back")
    consul.stop()
    consul.wipe()
    consul.start()
    agree(clean_engine, consul, "a wiped Consul")
    assert "Traceback" not in run.log


def test_engine_restarts(tmp_path: Path, consul: Consul, agent: RunAgent) -> None:
    engine = Dockerd(tmp_path / "engine")
    try:
        engine.start()
        engine.api.import_image("web", expose=[80])
        engine.api.run("stays", publish_all=True, restart="always")
        engine.api.run("goes", publish_all=True)
        run = agent(*words(uri(consul)), docker_host=engine.host)
        assert len(agree(engine, consul, "start")) == 2
        for end in (engine.stop, engine.kill):
            end()
            engine.start()
            agree(engine, consul, "the engine is back")
        engine.api.run("new", publish_all=True)
        agree(engine, consul, "a new container")
        assert run.running
    finally:
        engine.remove()


def test_put_right_by_the_next_resync(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    clean_engine.api.run("one1", publish_all=True)
    clean_engine.api.run("two2", publish_all=True)
    agent(*words(uri(consul), resync="1"))
    agree(clean_engine, consul, "start")
    put(consul, "agent/service/deregister/h:one1:80")
    agree(clean_engine, consul, "deleted")
    altered = {"ID": "h:two2:80", "Name": "other", "Address": IP, "Port": 1}
    put(consul, "agent/service/register", altered)
    agree(clean_engine, consul, "altered")
    assert consul.api("agent/services")["h:two2:80"]["Service"] == "web"
    # What somebody else registers is theirs, also at an address of ours.
    put(consul, "agent/service/register", {"ID": "theirs", "Name": "x", "Address": IP, "Port": 1})
    put(consul, "agent/service/deregister/h:one1:80")
    until(lambda: registered(consul).keys() == {"h:one1:80", "h:two2:80", "theirs"}, "theirs")


def test_a_resync_without_a_change_writes_nothing(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    clean_engine.api.run(
        "checked",
        publish_all=True,
        env={"SERVICE_CHECK_TTL": "1h", "SERVICE_TAGS": "b,a", "SERVICE_X": "y" * 600},
    )
    proxy = RecordingHTTPProxy(consul.address)
    try:
        agent(*words(f"consul://{proxy.address}", resync="0.2"))
        agree(clean_engine, consul, "start")
        listings = sum("agent/services" in r.path for r in proxy.requests)
        until(
            lambda: sum("agent/services" in r.path for r in proxy.requests) >= listings + 5,
            "five resyncs",
        )
        assert len(proxy.writes) == 1, proxy.writes
    finally:
        proxy.close()


def test_on_success_keeps_what_failed(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    agent(*words("-deregister", "on-success", uri(consul)))
    for name, code in (("good", 0), ("bad", 3)):
        command = ("sh", "-c", f"trap 'exit {code}' TERM; sleep 1000 & wait")
        clean_engine.api.run(name, publish_all=True, command=command)
    agree(clean_engine, consul, "start")
    clean_engine.api.stop("good")
    clean_engine.api.stop("bad")
    until(lambda: registered(consul).keys() == {"h:bad:80"}, "only the failed one")
    clean_engine.api.remove("bad")
    until(lambda: registered(consul) == {}, "the failed one removed")


def test_two_registries_fail_apart(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, tmp_path: Path
) -> None:
    path = tmp_path / "services.json"
    dead = "consul://127.99.99.99:1"
    run = agent(*words(dead, f"file://{path}", uri(consul)))
    clean_engine.api.run("web1", publish_all=True)
    agree(clean_engine, consul, "the live one")
    until(lambda: len(json.loads(path.read_text())) == 1, "the file", ignore=(OSError, ValueError))
    until(lambda: "retrying" in run.log, "a line on the dead one")


def test_gives_up_after_retry_attempts(clean_engine: Dockerd, agent: RunAgent) -> None:
    limits = ("-retry-attempts", "1", "-retry-interval", "1")
    run = agent(*limits, "-log-format", "json", "consul://127.99.99.99:1")
    assert run.exited() == 1
    lines = map(json.loads, filter(None, run.log.splitlines()))
    (told,) = (line for line in lines if line.get("event") == "gave_up")
    assert told["message"].startswith("giving up, as -retry-attempts are spent: consul://127.99")
    assert (told["level"], told["registry"]) == ("error", "consul://127.99.99.99:1")
    assert clean_engine.running


def test_hostile_metadata_harms_nobody(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    run = agent(*words(uri(consul)))
    clean_engine.api.run("good", publish_all=True)
    for n, env in enumerate(
        [
            {"SERVICE_NAME": "../../x"},
            {"SERVICE_ID": "a\nb"},
            {"SERVICE_NAME": "n" * 10_000},
            {"SERVICE_TAGS": "t" * 10_000},
            {"SERVICE_IP": "nowhere"},
        ]
    ):
        clean_engine.api.run(f"bad{n}", publish_all=True, env=env)
    until(lambda: run.log.count("not registered") >= 5, "five warnings")
    clean_engine.api.run("last", publish_all=True)
    until(lambda: registered(consul).keys() == {"h:good:80", "h:last:80"}, "the good ones")
    assert "Traceback" not in run.log
