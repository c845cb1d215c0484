"""The commands that read engine and registries themselves: a real engine, a real Consul."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.agent import READ_BY_AGENT, Agent
from support.consul import put
from support.engine import Dockerd
from support.process import Process
from support.servers import Consul

from registrator.cli import command
from registrator.commands import alone, asking

RunAgent = Callable[..., Agent]
HERE = ("-ip", "127.10.0.1", "-hostname", "h")
SECRET = "s3cret"
DOES_NOT_ANSWER = "registrator: the Docker engine does not answer: "

Call = Callable[..., tuple[int, list[str]]]


def environment(engine: Dockerd) -> Mapping[str, str]:
    own = {key: value for key, value in os.environ.items() if not READ_BY_AGENT.match(key)}
    return {**own, "DOCKER_HOST": engine.host}


@pytest.fixture
def call(clean_engine: Dockerd) -> Call:
    """Run a command in a process of its own. Gives the exit code and all lines."""

    def call(*words: str, **environ: str) -> tuple[int, list[str]]:
        done = subprocess.run(
            [sys.executable, "-m", "registrator", *words], capture_output=True, text=True,
            timeout=120, env={**environment(clean_engine), **environ},
        )  # fmt: skip
        assert SECRET not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, (done.stdout + done.stderr).splitlines()

    return call


def test_a_diff_tells_what_an_agent_writes_and_writes_nothing(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, call: Call
) -> None:
    uri = f"consul://{consul.address}"
    diff = ("diff", *HERE, uri)
    assert call(*diff) == (0, ["no difference"])
    api = clean_engine.api
    env = {"SERVICE_NAME": "web", "SERVICE_X": SECRET}
    web = api.run("web", publish_all=True, env=env)
    port = api.inspect(web)["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    wanted = [
        f"+ h:web:80  web 127.10.0.1:{port}",
        "1 to register, 0 to change, 0 to remove, 0 conflicts",
    ]
    assert call(*diff) == (1, wanted)
    assert consul.api("agent/services") == {}
    running = agent(*HERE, uri)
    running.wait_log("registered web")
    assert call(*diff) == (0, ["no difference"])
    running.stop()

    mine = consul.api("agent/services")["h:web:80"]
    changed = {**mine["Meta"], "x": "another"}
    put(consul, "agent/service/register", body_of(mine, Meta=changed, Tags=["new"]))
    put(consul, "agent/service/register", body_of(mine, ID="h:old:80", Meta=mine["Meta"]))
    api.run("taken", publish_all=True, env={"SERVICE_ID": "other", "SERVICE_NAME": "a"})
    strange = {"ID": "other", "Name": "a", "Address": "127.9.9.9", "Port": 1}
    put(consul, "agent/service/register", strange)
    before = consul.api("agent/services")
    code, lines = call(*diff)
    assert code == 1
    assert [line.split(maxsplit=2) for line in lines] == [
        ["~", "h:web:80", "meta, tags"],
        ["-", "h:old:80", "dangling"],
        ["!", "other", "somebody else registered it with 127.9.9.9"],
        ["0", "to", "register, 1 to change, 1 to remove, 1 conflict"],
    ]
    _, (line,) = call("diff", "-json", *HERE, uri)
    (told,) = json.loads(line)["registries"]
    assert (told["name"], told["error"], told["conflicts"]) == (uri, "", 1)
    assert [each["sign"] for each in told["differences"]] == ["~", "-", "!"]
    assert call("diff", *HERE, "-cleanup=false", uri)[1][1].startswith("!"), "that agent keeps it"
    assert consul.api("agent/services") == before


def body_of(service: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    same = {key: service[key] for key in ("ID", "Address", "Port", "Tags", "Meta")}
    return {**same, "Name": service["Service"], **changes}


def test_two_registries_of_which_one_is_away(
    clean_engine: Dockerd, tmp_path: Path, call: Call
) -> None:
    clean_engine.api.run("web", publish_all=True)
    away, file = "consul://s3cret@127.99.99.99:1", f"file://{tmp_path}/services.json"
    code, lines = call("diff", *HERE, away, file)
    assert code == 3
    assert lines[0] == "consul://***@127.99.99.99:1:"
    assert lines[2] == f"{file}:"
    assert lines[3].startswith("+ h:web:80")
    assert "Connection refused" in lines[-1]
    code, lines = call("check", *HERE, away, file)
    assert code == 3
    assert lines[0].split() == ["options", "fine"]
    assert lines[1].split()[0] == "engine"
    assert "does not answer: " in lines[2]
    assert lines[3].split(maxsplit=1) == [
        file, "answers; 0 entries ours, 0 others'; writing not tried",
    ]  # fmt: skip
    assert call("list", *HERE, away)[0] == 3
    assert [*tmp_path.iterdir()] == []


def test_a_check_counts_the_entries(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, call: Call
) -> None:
    clean_engine.api.run("web", publish_all=True)
    put(consul, "agent/service/register", {"ID": "x", "Name": "a", "Port": 1})
    uri = f"consul://{consul.address}"
    agent(*HERE, uri).wait_log("registered ")
    code, lines = call("check", *HERE, uri)
    assert code == 0
    told = f"answers ({consul.address}); 1 entry ours, 1 others'; writing not tried"
    assert lines[2].split(maxsplit=1) == [uri, told]
    _, (line,) = call("check", "-json", *HERE, uri)
    assert json.loads(line)["registries"][0]["server"] == consul.address


def test_an_engine_that_does_not_answer(call: Call, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/services.json"
    for name in ("check", "diff", "list", "watch"):
        code, lines = call(name, uri, DOCKER_HOST="tcp://127.99.99.99:1")
        assert code == 3
        assert lines[-1].startswith(f"{DOES_NOT_ANSWER}tcp://127.99.99.99:1: ")
    assert call("explain", "web", uri, DOCKER_HOST="unix:///nowhere.sock") == (
        3, [f"{DOES_NOT_ANSWER}unix:///nowhere.sock: No such file or directory"],
    )  # fmt: skip
    assert call("diff", uri, DOCKER_HOST="nonsense")[0] == 2


@pytest.mark.parametrize("name", ["check", "diff"])
def test_a_wrong_call(call: Call, name: str) -> None:
    assert call(name)[0] == 2
    code, lines = call(name, "-ttl", "30", "consul://127.0.0.1")
    assert code == 2
    assert "-ttl and -ttl-refresh go together" in lines[0]


def test_the_list_without_an_agent(clean_engine: Dockerd, consul: Consul, call: Call) -> None:
    api = clean_engine.api
    api.run("web", publish_all=True)
    api.run("hidden")
    uri = f"consul://{consul.address}"
    code, lines = call("list", *HERE, uri)
    assert code == 1
    shown = {line.split()[0]: line for line in lines}
    assert shown["web"].endswith(alone.NOT_THERE)
    assert shown["hidden"].endswith("it is not published")
    code, lines = call("explain", "web", *HERE, uri)
    assert code == 1
    assert lines[-1] == f"  {uri}: {alone.NOT_THERE}"
    _, (line,) = call("list", "-json", *HERE, uri)
    assert json.loads(line)["summary"]["verdict"] == "1 of 1 services are not registered"
    code, lines = call("list", *HERE)
    assert code == 0
    assert {line.split()[0]: line for line in lines}["web"].endswith(alone.WOULD_BE)
    assert call("explain", uri)[0] == 2
    assert consul.api("agent/services") == {}


def test_without_an_agent_and_without_a_uri_the_engine_is_read(
    clean_engine: Dockerd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean_engine.api.run("web", publish_all=True)
    # The agents of other tests run here, too. And the command's log would replace pytest's.
    monkeypatch.setattr(asking, "agents", list)
    monkeypatch.setattr("registrator.system.log.on_stderr", lambda *_: contextlib.nullcontext())
    monkeypatch.setenv("DOCKER_HOST", clean_engine.host)
    with pytest.raises(SystemExit) as ended:
        command(["list"], prog_name="registrator")
    assert ended.value.code == 0
    shown = capsys.readouterr()
    assert alone.WOULD_BE in shown.out
    nobody = "registrator: no agent runs here, or it belongs to another user"
    assert shown.err == f"{nobody}: the engine tells what would be registered\n"


def test_a_watch_follows_engine_and_registry(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, tmp_path: Path
) -> None:
    class Watch(Process):
        def environment(self) -> Mapping[str, str]:
            return {**environment(clean_engine), "PYTHONUNBUFFERED": "1"}

    uri = f"consul://{consul.address}"
    command = [sys.executable, "-m", "registrator", "watch", *HERE, uri]
    watch = Watch("watch", tmp_path / "watch", command)
    watch.launch()
    try:
        watch.wait_log("CONTAINER")
        web = clean_engine.api.run("web", publish_all=True)
        watch.wait_log(r"\+ +web +80/tcp +pending")
        agent(*HERE, uri)
        watch.wait_log(r"~ +web +80/tcp +registered")
        clean_engine.api.stop(web)
        watch.wait_log(r"- +web +80/tcp")
    finally:
        watch.stop()
