"""Several real agents on one host, of which some cannot answer the commands."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.agent import Agent
from support.engine import Dockerd
from support.namespace import Isolated
from support.wait import until

from registrator.cli import command
from registrator.commands import asking
from registrator.listener import client

RunAgent = Callable[..., Agent]
REFUSED = "Connection refused (it may be in another network: ask it with docker exec)"


@pytest.fixture
def namespace() -> Iterator[Isolated]:
    made = Isolated()
    yield made
    made.remove()


def test_an_agent_is_shown_beside_one_that_is_stopped_and_one_in_another_network(
    clean_engine: Dockerd,
    agent: RunAgent,
    namespace: Isolated,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clean_engine.api.run("web", publish_all=True)
    words = ("-ip", "127.10.0.1", "-hostname", "h")
    well = agent(*words, f"file://{tmp_path}/well.json")
    stopped = agent(*words, f"file://{tmp_path}/stopped.json")
    away = agent(*words, f"file://{tmp_path}/away.json", prefix=namespace.command)
    pids = {each.pid for each in (well, stopped, away)}

    def ours() -> list[client.Agent]:
        """The agents of this test. Those of other tests run here, too."""
        return [each for each in client.agents() if each.pid in pids]

    for each in (well, stopped, away):
        each.wait_log("registered web")
    until(lambda: len(ours()) == 3, lambda: str(client.agents()))
    stopped.signal(signal.SIGSTOP)
    monkeypatch.setattr(asking, "agents", ours)
    monkeypatch.setattr(client, "TIMEOUT", 2.0)
    silent = {stopped.pid: "timed out", away.pid: REFUSED}
    for call in ("status", "list", "explain web"):
        with pytest.raises(SystemExit) as ended:
            command(call.split(), prog_name="registrator")
        shown = capsys.readouterr()
        assert ended.value.code == 3
        assert "1 service" in shown.out or "127.10.0.1:" in shown.out
        assert sorted(shown.err.splitlines()) == sorted(
            f"registrator: the agent with the process id {pid} does not answer: {why}"
            for pid, why in silent.items()
        )
    stopped.signal(signal.SIGCONT)


def test_the_line_about_a_silent_agent_names_its_container(clean_engine: Dockerd) -> None:
    web = clean_engine.api.run("web")
    pid = clean_engine.api.inspect(web)["State"]["Pid"]
    line = asking.silence(client.Agent("", pid), ConnectionRefusedError(111, "Connection refused"))
    assert line.endswith(f": {REFUSED[:-1]} {web[:12]})")
