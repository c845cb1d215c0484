"""``-deregister-on-stop`` and ``-deregister-on-pause`` on a real engine and real registries.

The applications end only when a test says so, by SIGUSR1. So no test depends on a time.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import RunAgent
from support.agent import Agent
from support.consul import put
from support.engine import Dockerd
from support.etcd import keys, revision
from support.servers import Consul, Etcd, program
from support.wait import until

IP = "127.10.0.1"
ROOT = Path(__file__).resolve().parents[1]

# Serves on after SIGTERM and SIGQUIT. The web server goes to the background.
SCRIPT = """
httpd -p 80 -h /bin
trap : TERM QUIT HUP
trap 'exit 3' USR1
while :; do sleep 1000 & wait; done
"""
SERVES_ON = ("sh", "-c", SCRIPT)

# nginx with an answer that takes hours, for as long as somebody reads it.
NGINX = """
printf 'events {} http { server { listen 80; location / {
    root /usr/sbin; limit_rate 100; } } }' >/etc/nginx/nginx.conf
exec nginx -g 'daemon off;'
"""

# The command with other times, so that a test need not wait for two minutes.
SOON = """
from registrator.desired import withdrawn
withdrawn.GRACE, withdrawn.RETURN = -9.0, 3.0
from registrator.cli import main
main()
"""


def words(consul: Consul, *more: str, resync: str = "0") -> list[str]:
    common = ["-ip", IP, "-hostname", "h", "-resync", resync]
    return [*common, *more, f"consul://{consul.address}"]


def names(consul: Consul) -> set[str]:
    """The containers that are registered."""
    return {key.split(":")[1] for key in consul.api("agent/services")}


def become(consul: Consul, *wanted: str) -> None:
    until(
        lambda: names(consul) == {*wanted},
        lambda: f"{names(consul)} in place of {wanted}",
        ignore=(OSError, ValueError),
    )


def serves(engine: Dockerd, container: str) -> bool:
    """Whether its web server answers."""
    connection = http.client.HTTPConnection(engine.ip, engine.api.host_port(container), timeout=60)
    try:
        connection.request("GET", "/nothing")
        return connection.getresponse().status == 404
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def run(engine: Dockerd, name: str, **options: Any) -> None:
    """Run an application that serves on, and wait until its signal handlers stand."""
    engine.api.run(name, publish_all=True, command=SERVES_ON, **options)
    until(lambda: serves(engine, name), f"{name} serves")
    # `sh` waits, and so does `sleep`, which is started last.
    until(lambda: len(engine.api.request("GET", f"/containers/{name}/top")["Processes"]) == 3, name)


@contextmanager
def stopping(engine: Dockerd, *containers: str) -> Iterator[None]:
    """Within this, ``docker stop -t 300`` of these waits. Then the applications end."""
    calls = [threading.Thread(target=engine.api.stop, args=(name, 300)) for name in containers]
    for call in calls:
        call.start()
    try:
        yield
    finally:
        for name in containers:
            engine.api.kill(name, "USR1")
        for call in calls:
            call.join(120)


def test_an_entry_goes_while_the_application_still_serves(
    clean_engine: Dockerd, consul: Consul, etcd: Etcd, agent: RunAgent
) -> None:
    """In two registries, by SIGTERM and by another stop signal. Resyncs change nothing."""
    engine = clean_engine
    run(engine, "term")
    run(engine, "quit", stop_signal="SIGQUIT")
    run(engine, "other")
    uri = f"etcd://{etcd.address}/stopping"
    watched = agent(*words(consul, "-deregister-on-stop", uri, resync="0.5"))

    def in_etcd() -> set[str]:
        return {key.split(":")[1] for key in keys(etcd, "/stopping/")}

    become(consul, "term", "quit", "other")
    with stopping(engine, "term", "quit"):
        become(consul, "other")
        until(lambda: in_etcd() == {"other"}, "etcd")
        before = revision(etcd)
        for _ in range(2):
            put(consul, "agent/service/deregister/h:other:80")
            become(consul, "other")  # by a resync
        assert in_etcd() == {"other"}
        assert revision(etcd) == before, "a resync without a change wrote"
        assert serves(engine, "term")
        assert serves(engine, "quit")
        # An agent that was restarted knows nothing of the signals.
        watched.kill()
        agent(*words(consul, "-deregister-on-stop", uri))
        become(consul, "term", "quit", "other")
        assert serves(engine, "term")
    become(consul, "other")
    until(lambda: in_etcd() == {"other"}, "etcd")


def test_signals_that_withdraw_nothing(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    engine = clean_engine
    run(engine, "hup")
    run(engine, "labelled", labels={"signal": "15"})
    run(engine, "quit", stop_signal="SIGQUIT")
    agent(*words(consul, "-deregister-on-stop"))
    become(consul, "hup", "labelled", "quit")
    engine.api.kill("hup", "HUP")
    engine.api.kill("hup", "QUIT")
    engine.api.kill("labelled", "TERM")
    # Its event comes after theirs.
    engine.api.kill("quit", "QUIT")
    become(consul, "hup", "labelled")
    engine.api.kill("labelled", "USR1")
    become(consul, "hup")


def test_without_the_option_an_entry_stays_until_the_end(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    engine = clean_engine
    run(engine, "term")
    agent(*words(consul))
    become(consul, "term")
    engine.api.kill("term", "TERM")
    engine.api.run("later", publish_all=True)
    become(consul, "term", "later")
    engine.api.kill("term", "USR1")
    become(consul, "later")


def test_on_success_keeps_nothing_that_was_told_to_stop(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    """Both end with exit code 3."""
    engine = clean_engine
    run(engine, "stopped")
    run(engine, "failed")
    agent(*words(consul, "-deregister-on-stop", "-deregister", "on-success", resync="0.5"))
    become(consul, "stopped", "failed")
    with stopping(engine, "stopped"):
        become(consul, "failed")
    engine.api.kill("failed", "USR1")
    engine.api.run("later", publish_all=True)
    become(consul, "failed", "later")


def test_an_application_that_ignores_the_signal_returns(
    clean_engine: Dockerd, consul: Consul, tmp_path: Path
) -> None:
    engine = clean_engine
    run(engine, "deaf")
    made = Agent(tmp_path / "soon", (), engine.host)
    made._command = [sys.executable, "-c", SOON, *words(consul, "-deregister-on-stop")]
    with ExitStack() as ends:
        ends.callback(made.kill)
        made.start()
        become(consul, "deaf")
        engine.api.kill("deaf", "TERM")
        made.wait_log(
            r"(?s)removed h:deaf:80.*"
            r"container deaf \([0-9a-f]{12}\) was told to stop and still runs: its services return"
            r".*registered web as h:deaf:80"
        )
        become(consul, "deaf")
        engine.api.kill("deaf", "TERM")
        until(lambda: made.log.count("removed h:deaf:80") == 2, "it is told once more")
        engine.api.remove("deaf")
        become(consul)
        assert "Traceback" not in made.log


def test_restart_and_removal(clean_engine: Dockerd, consul: Consul, agent: RunAgent) -> None:
    engine = clean_engine
    for name in ("again", "goes"):
        engine.api.run(name, publish_all=True)
    watched = agent(*words(consul, "-deregister-on-stop"))
    become(consul, "again", "goes")
    engine.api.restart("again")
    watched.wait_log(r"(?s)removed h:again:80.*registered web as h:again:80")
    become(consul, "again", "goes")
    (entry,) = (e for k, e in consul.api("agent/services").items() if k == "h:again:80")
    assert entry["Port"] == engine.api.host_port("again")
    engine.api.remove("goes")
    become(consul, "again")
    assert "was told to stop" not in watched.log


def test_a_restart_of_the_engine_returns_all_at_once(
    tmp_path: Path, consul: Consul, agent: RunAgent
) -> None:
    """The engine tells all containers to stop, and starts them again."""
    engine = Dockerd(tmp_path / "engine")
    try:
        engine.start()
        engine.api.import_image("web", expose=[80])
        for name in ("one", "two"):
            engine.api.run(name, publish_all=True, restart="always")
        watched = agent(*words(consul, "-deregister-on-stop"), docker_host=engine.host)
        become(consul, "one", "two")
        engine.stop()
        engine.start()
        until(lambda: watched.log.count("registered web as h:one:80") > 1, watched.tail)
        become(consul, "one", "two")
        assert "was told to stop" not in watched.log
    finally:
        engine.remove()


def test_paused_containers(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, tmp_path: Path
) -> None:
    """One agent has the option, and the other one, with a file, has not."""
    engine, file = clean_engine, tmp_path / "services.json"
    for name in ("cold", "warm"):
        engine.api.run(name, publish_all=True)
    first = agent(*words(consul, "-deregister-on-pause"))
    agent("-ip", IP, "-hostname", "h", "-resync", "0.5", f"file://{file}")

    def in_file() -> set[str]:
        return {group["labels"]["id"].split(":")[1] for group in json.loads(file.read_text())}

    become(consul, "cold", "warm")
    engine.api.pause("cold")
    become(consul, "warm")
    put(consul, "agent/service/deregister/h:warm:80")
    first.signal(signal.SIGHUP)
    become(consul, "warm")
    engine.api.run("later", publish_all=True)
    become(consul, "warm", "later")
    until(lambda: in_file() == {"cold", "warm", "later"}, "the file")
    engine.api.unpause("cold")
    become(consul, "cold", "warm", "later")
    # It counts whether it is paused, and not whether somebody tells of that.
    first.kill()
    engine.api.pause("cold")
    engine.api.unpause("cold")
    engine.api.pause("warm")
    agent(*words(consul, "-deregister-on-pause"))
    become(consul, "cold", "later")
    assert in_file() == {"cold", "warm", "later"}
    engine.api.unpause("warm")
    become(consul, "cold", "warm", "later")


@pytest.fixture
def nginx(clean_engine: Dockerd) -> Dockerd:
    """The engine, with an image that has the machine's nginx."""
    program("nginx", package="nginx")
    program("docker", package="docker.io")
    script = [sys.executable, str(ROOT / "scripts/base_images.py"), "nginx:1.22"]
    environ = {**os.environ, "DOCKER_HOST": clean_engine.host}
    subprocess.run(script, env=environ, check=True, capture_output=True, timeout=300)
    return clean_engine


def test_nginx_ends_its_connections_after_its_entry_is_gone(
    nginx: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    """The public image has SIGQUIT: nginx answers the requests that it has, and ends."""
    nginx.api.run("web1", "nginx:1.22", publish_all=True, command=("sh", "-c", NGINX),
                  stop_signal="SIGQUIT")  # fmt: skip
    agent(*words(consul, "-deregister-on-stop"))
    become(consul, "web1")
    connection = http.client.HTTPConnection(nginx.ip, nginx.api.host_port("web1"), timeout=60)

    def asked() -> http.client.HTTPResponse:
        connection.close()
        connection.request("GET", "/nginx")
        return connection.getresponse()

    answer = until(asked, "an answer", ignore=(OSError, http.client.HTTPException))
    assert answer.status == 200
    stop = threading.Thread(target=nginx.api.stop, args=("web1", 300))
    stop.start()
    become(consul)
    assert nginx.api.inspect("web1")["State"]["Running"]
    assert answer.read(1)
    connection.close()
    answer.close()
    stop.join(120)
    assert not nginx.api.inspect("web1")["State"]["Running"]
    become(consul)
