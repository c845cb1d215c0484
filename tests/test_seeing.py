"""The state of a running agent on a real engine and a real Consul, asked by both doors."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.agent import Agent
from support.consul import put
from support.engine import Dockerd
from support.listener import received
from support.servers import Consul, free_ports, loopback_ip
from support.wait import until

from registrator.cli import command
from registrator.commands import asking, watch
from registrator.health import notes, socket_of
from registrator.listener import client
from registrator.listener.client import Reply, ask

RunAgent = Callable[..., Agent]
IP = "127.10.0.1"


class Asked:
    """An agent with both doors open, and what it answers."""

    def __init__(self, agent: RunAgent, consul: Consul, *words: str) -> None:
        self.host = loopback_ip()
        (self.port,) = free_ports(self.host, 1)
        address = f"{self.host}:{self.port}"
        self.uri = f"consul://{consul.address}"
        self.agent = agent("-ip", IP, "-hostname", "h", "-http", address, *words, self.uri)
        self.agent.wait_log(f"answering at {address}")

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """The status and the body by the address of ``-http``."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ask(self, path: str) -> Reply:
        """The answer by the private socket."""
        return ask(self.private, path)

    @property
    def private(self) -> str:
        """The name of the private socket, as the health note of this very agent has it."""
        folder = Path(f"/proc/{self.agent.pid}")
        found = []
        for link in (folder / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # It may close one meanwhile.
                found.append(link.readlink())
        assert any("registrator-health" in str(link) for link in found)
        names = {socket_of(note.text) for note in notes()}
        own = Path(f"/proc/{self.agent.pid}/net/unix").read_text()
        sockets = {str(link)[8:-1] for link in found if str(link).startswith("socket:[")}
        lines = [line.split() for line in own.splitlines() if "@registrator-" in line]
        (name,) = {line[-1][1:] for line in lines if line[6] in sockets} & names
        return name

    def state(self) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self.get("/api/state")[1])
        return made

    def outcomes(self) -> dict[tuple[str, int | None], tuple[str, str]]:
        """The outcome and the reason of each port, by the container's name."""
        return {
            (group["name"], row["port"]): (row["outcome"], row["why"])
            for group in self.state()["containers"]
            for row in group["ports"]
        }


def test_it_tells_what_stands_and_what_does_not(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    api = clean_engine.api
    api.run("good", publish_all=True, env={"SERVICE_TAGS": "a", "SERVICE_X": "s3cret"})
    api.run("bad", publish_all=True, env={"SERVICE_NAME": "..", "TOKEN": "s3cret"})
    api.run("hidden")
    api.run("ignored", publish_all=True, env={"SERVICE_IGNORE": "1"})
    asked = Asked(agent, consul)
    wanted = {
        ("good", 80): "registered",
        ("bad", 80): "rejected",
        ("hidden", 80): "not_published",
        ("ignored", 80): "ignored",
    }
    until(
        lambda: {key: told[0] for key, told in asked.outcomes().items()} == wanted,
        lambda: str(asked.outcomes()),
    )
    assert "SERVICE_NAME" in asked.outcomes()["bad", 80][1]
    made = asked.state()
    assert made["agent"]["hostname"] == "h"
    assert made["agent"]["addresses"]["text"] == f"published ports at {IP}"
    (registry,) = made["registries"]
    assert registry["name"] == asked.uri
    assert registry["server"] == consul.address
    assert registry["counts"] == {"registered": 1, "pending": 0, "refused": 0, "conflicts": 0}
    assert made["summary"]["verdict"] == "1 needs attention"
    assert b"s3cret" not in asked.get("/api/state")[1]
    assert json.loads(asked.ask("/api/state").body)["containers"] == made["containers"]
    assert asked.get("/readyz") == (200, b"well\n")


def test_it_tells_of_an_outage_and_its_end(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    clean_engine.api.run("before", publish_all=True)
    asked = Asked(agent, consul)
    until(lambda: ("before", 80) in asked.outcomes(), "the container")
    until(lambda: asked.outcomes()["before", 80][0] == "registered", "its entry")
    consul.stop()
    clean_engine.api.run("after", publish_all=True)
    until(
        lambda: asked.outcomes().get(("after", 80), ("",))[0] == "registry_away",
        lambda: str(asked.outcomes()),
    )
    assert asked.outcomes()["before", 80][0] == "registered"
    (registry,) = asked.state()["registries"]
    assert registry["state"] == "down"
    assert registry["outage_since"] <= registry["next_attempt"]
    assert asked.get("/livez")[0] == 200
    assert asked.get("/readyz")[0] == 503
    assert asked.uri.encode() in asked.get("/readyz")[1]
    consul.start()
    until(
        lambda: {told[0] for told in asked.outcomes().values()} == {"registered"},
        lambda: str(asked.outcomes()),
    )
    assert asked.get("/readyz")[0] == 200
    (registry,) = asked.state()["registries"]
    assert (registry["state"], registry["outage_since"]) == ("in_sync", None)


def test_bad_clients_delay_no_event_and_leave_nothing_open(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    asked = Asked(agent, consul)
    until(lambda: asked.get("/readyz")[0] == 200, "the agent")
    asked.ask("/api/state")
    folder = Path(f"/proc/{asked.agent.pid}/fd")
    until(lambda: not clients_of(asked), "the end of the first clients")
    before = len([*folder.iterdir()])
    where = (asked.host, asked.port)
    held = [socket.create_connection(where, timeout=120) for _ in range(30)]
    for number, each in enumerate(held):
        sent = (b"", b"GET /api/state HTTP/1.1\r\n", b"x" * 9000, b"POST / HTTP/1.1\r\n\r\n")[
            number % 4
        ]
        each.sendall(sent)
    clean_engine.api.run("web", publish_all=True)
    until(lambda: "h:web:80" in consul.api("agent/services"), "the entry")
    for each in held:
        received(each)  # It is answered or closed, though it sends no more.
        each.close()
    until(lambda: asked.get("/livez")[0] == 200, "an answer")
    until(lambda: not clients_of(asked), "the end of all clients")
    until(lambda: len([*folder.iterdir()]) <= before, "as few descriptors as before")


def clients_of(asked: Asked) -> int:
    """How many connections to the port of ``-http`` this agent has."""
    shown = subprocess.run(
        ["ss", "-Htn", "state", "established", "state", "close-wait", "sport", f"= :{asked.port}"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    return len(shown.splitlines())


def test_a_stopped_agent_leaves_no_socket(
    agent: RunAgent, tmp_path: Path, clean_engine: Dockerd
) -> None:
    path = tmp_path / "a.sock"
    made = agent("-http", f"unix://{path}", f"file://{tmp_path}/services.json")
    made.wait_log("answering at unix://")
    assert path.stat().st_mode & 0o777 == 0o600
    made.signal(signal.SIGTERM)
    assert made.exited() == 0
    assert not path.exists()


@pytest.mark.parametrize("value", ["9909", "web:80", ":0", "unix://a"])
def test_a_wrong_address_ends_it(value: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "registrator", "-http", value, f"file://{tmp_path}/a.json"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "DOCKER_HOST": "x"}
    )
    assert done.returncode == 2
    assert "-http must be ADDRESS:PORT" in done.stderr


def test_all_addresses_come_with_a_warning(
    clean_engine: Dockerd, agent: RunAgent, tmp_path: Path
) -> None:
    (port,) = free_ports("0.0.0.0", 1)
    made = agent("-http", f":{port}", f"file://{tmp_path}/services.json")
    made.wait_log("there is no password")
    made.wait_log(f"answering at :{port}")


def test_nothing_that_answers_is_imported_before_somebody_asks() -> None:
    """An agent that nobody asks has to stay small."""
    code = (
        "import sys, registrator.agent\n"
        "late = {'registrator.listener.site', 'registrator.status.state', 'http.server',\n"
        " 'registrator.status.metrics', 'prometheus_client'}\n"
        "sys.exit(f'{late & {*sys.modules}}' if late & {*sys.modules} else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# Each reason, with the container that has it.
LEFT_OUT: dict[str, tuple[str, dict[str, Any]]] = {
    "hidden": ("it is not published", {"publish_all": False}),
    "ignored": ("SERVICE_IGNORE is set", {"env": {"SERVICE_NAME": "a", "SERVICE_IGNORE": "1"}}),
    "unbound": (
        "names it, but it is not published",
        {"publish_all": False, "env": {"SERVICE_NAME": "a", "SERVICE_PORTS": "80"}},
    ),
    "unnamed": ("-explicit is given and SERVICE_NAME is not set", {}),
    "filtered": ("the filter excludes it", {"labels": {"hide": "1"}}),
    "wrong": ("SERVICE_NAME has a path segment", {"env": {"SERVICE_NAME": ".."}}),
    "nowhere": ("names the network", {"env": {"SERVICE_NAME": "a", "SERVICE_NETWORK": "no"}}),
    "first": (
        "has the same id 'same', and keeps it",
        {"env": {"SERVICE_NAME": "a", "SERVICE_ID": "same"}},
    ),
    "second": ("registered", {"env": {"SERVICE_NAME": "a", "SERVICE_ID": "same"}}),
    "taken": ("somebody else registered it", {"env": {"SERVICE_NAME": "a", "SERVICE_ID": "other"}}),
    "refused": ("reserved", {"env": {"SERVICE_NAME": "a", "SERVICE_ID": "registrator:x"}}),
}


def test_the_commands_give_the_reason_and_what_to_do(
    clean_engine: Dockerd,
    consul: Consul,
    agent: RunAgent,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    strange = {"ID": "other", "Name": "a", "Address": "127.9.9.9", "Port": 1}
    put(consul, "agent/service/register", strange)
    for name, (_, options) in LEFT_OUT.items():
        clean_engine.api.run(name, **{"publish_all": True, **options})
    asked = Asked(agent, consul, "-explicit", "-filter", "label!=hide")
    until(lambda: len(asked.outcomes()) == len(LEFT_OUT), lambda: str(asked.outcomes()))
    until(lambda: asked.get("/readyz")[0] == 200, "the agent")
    # The agents of other tests run here, too.
    monkeypatch.setattr(asking, "agents", lambda: [client.Agent(asked.private)])
    outcomes = asked.state()["outcomes"]
    # The command's log would take the place of pytest's.
    monkeypatch.setattr("registrator.system.log.on_stderr", lambda *_: contextlib.nullcontext())
    monkeypatch.setenv("DOCKER_HOST", clean_engine.host)
    given = ("-explicit", "-filter", "label!=hide")
    alone = ("-ip", IP, "-hostname", "h", *given, asked.uri)

    def shown(*words: str) -> str:
        with pytest.raises(SystemExit):
            command(list(words), prog_name="registrator")
        return capsys.readouterr().out

    listed = {line.split()[0]: line for line in shown("list").splitlines()}
    for (name, _), (outcome, why) in asked.outcomes().items():
        explained = shown("explain", name)
        assert LEFT_OUT[name][0] in explained, explained
        assert why in explained
        assert why in listed[name]
        assert outcome.replace("_", " ") in listed[name]
        if outcome != "registered":
            assert outcomes[outcome]["remedy"] in explained
        assert shown("explain", name, *alone) == explained, "without the agent it is the same"
    assert shown("list", *alone) == shown("list")
    assert {told[0] for told in asked.outcomes().values()} == {
        "not_published", "not_reachable", "ignored", "not_named", "filtered", "rejected",
        "not_attached", "same_id", "registered", "others_entry", "refused",
    }  # fmt: skip
    consul.stop()
    clean_engine.api.run("late", publish_all=True, env={"SERVICE_NAME": "a"})
    until(
        lambda: asked.outcomes().get(("late", 80), ("",))[0] == "registry_away",
        lambda: str(asked.outcomes()),
    )
    assert outcomes["registry_away"]["remedy"] in shown("explain", "late")
    assert outcomes["registry_away"]["remedy"] in shown("explain", "late", *alone)
    assert f"{asked.uri}  down for" in shown("status")
    consul.start()


def test_a_watch_follows_containers_until_the_agent_ends(
    clean_engine: Dockerd,
    consul: Consul,
    agent: RunAgent,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clean_engine.api.run("first", publish_all=True)
    asked = Asked(agent, consul)
    until(lambda: asked.get("/readyz")[0] == 200, "the agent")
    private, looks, seen = client.Agent(asked.private), 0, ""

    def running() -> list[client.Agent]:
        """Called before each look: after the first one another container starts."""
        nonlocal looks, seen
        looks, seen = looks + 1, seen + capsys.readouterr().out
        if looks == 2:
            clean_engine.api.run("second", publish_all=True)
        if "+  second" in seen and asked.agent.running:
            asked.agent.signal(signal.SIGTERM)
            assert asked.agent.exited() == 0
        return [private] if asked.agent.running else []

    monkeypatch.setattr(watch, "running", running)
    with pytest.raises(SystemExit) as ended:
        command(["watch"], prog_name="registrator")
    assert ended.value.code == 0
    shown = seen + capsys.readouterr().out
    assert "CONTAINER" in shown
    assert "first" in shown
    assert shown.endswith("the agent has ended\n")
