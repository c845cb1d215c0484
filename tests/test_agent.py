"""The agent's beginning and end: an engine that is mute, away or wrongly named, and signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import RunAgent
from faults import ends
from support.agent import Agent
from support.engine import Dockerd
from support.stderr import FullPipe
from support.wait import until

from registrator.agent import Agent as Composed
from registrator.config import Config
from registrator.status.board import Board
from registrator.uri import parse


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[str]:
    """The address of an engine that accepts connections and never answers, as a frozen one."""
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(50)
        yield f"unix://{path}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_agent_that_waits_for_a_mute_engine(
    number: signal.Signals, mute: str, agent: RunAgent, tmp_path: Path
) -> None:
    waiting = agent(f"file://{tmp_path}/services.json", docker_host=mute)
    waiting.signal(number)
    assert waiting.exited() == 0


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"DOCKER_HOST": "garbage"}, "DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://user:s3cret@127.0.0.1:2375"}, "DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://s3cret@127.0.0.1:2375"}, "DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://user:s3cret@[::1"}, "DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:s3cret"}, "DOCKER_HOST"),
        ({"DOCKER_HOST": "ssh://user@127.0.0.1"}, "DOCKER_HOST"),
        ({"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/nowhere"}, "DOCKER_CERT_PATH"),
        ({"DOCKER_CONTEXT": "nowhere"}, "DOCKER_CONTEXT"),
        ({"DOCKER_API_VERSION": "latest"}, "DOCKER_API_VERSION"),
    ],
)
def test_wrong_docker_variables_end_it_with_one_line_and_no_secret(
    variables: dict[str, str], words: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "registrator", f"file://{tmp_path}/services.json"],
        env=variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "s3cret" not in done.stderr


def test_a_registry_that_became_unusable_before_the_engine_came_ends_it_with_the_reason(
    clean_engine: Dockerd, agent: RunAgent, tmp_path: Path
) -> None:
    late = tmp_path / "late.sock"
    waiting = agent(f"file://{tmp_path}/services.json", docker_host=f"unix://{late}")
    waiting.wait_log("none answers")
    file = tmp_path / "services.json"
    file.write_text("somebody else's")
    os.utime(file, (0, 0))  # one that changed just now may be half written
    late.symlink_to(clean_engine.socket)
    assert waiting.exited() == 1
    assert "services.json exists and is not a list of target groups" in waiting.log
    assert "bug" not in waiting.log


def test_it_gives_back_memory_once_when_all_is_registered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[int] = []
    looks = iter([["not in sync"], [], [], ["not in sync"], []])

    def problems(_: Board) -> list[str]:
        given.append(0)
        return next(looks)

    def give_back() -> None:
        given[-1] = 1

    # The real one would take over the signals of this process.
    inbox = SimpleNamespace(wait=lambda _: [] if len(given) < 5 else [signal.SIGTERM])
    monkeypatch.setattr("registrator.agent.Inbox", lambda _: inbox)
    monkeypatch.setattr(Board, "problems", problems)
    monkeypatch.setattr("registrator.agent.settle_memory", give_back)
    uri = parse(f"file://{tmp_path}/services.json")
    composed = Composed(Config(uris=(uri,)))
    composed._attend()
    # Its health note would be one of this process.
    composed._health.close()
    assert given == [0, 1, 0, 0, 0]


def test_it_says_at_its_start_where_ports_are_registered(
    clean_engine: Dockerd, agent: RunAgent, tmp_path: Path
) -> None:
    words = ("-hostname", "vm", "-internal", "-network", "front")
    agent(*words, f"file://{tmp_path}/services.json").wait_log(
        "ids start with vm, exposed ports are registered at the containers' own addresses "
        "in the network front"
    )


# Each stderr and each moment is among them.
@pytest.mark.timeout(600)
def test_sigterm_at_any_moment_ends_it_whatever_stderr_does(
    clean_engine: Dockerd, tmp_path: Path
) -> None:
    for number in range(3):
        clean_engine.api.run(f"c{number}", "web", publish_all=True)
    with ends.place(clean_engine.host, tmp_path) as where:
        done = ends.run(range(40), where, tmp_path)
    assert {trial.moment for trial, _ in done} == set(ends.MOMENTS)
    assert {trial.stderr for trial, _ in done} == set(ends.STDERRS)


def test_a_full_stderr_stops_nothing_and_sigusr1_tells_what_every_thread_does(
    clean_engine: Dockerd, tmp_path: Path
) -> None:
    """Lines that were logged meanwhile come out later."""
    clean_engine.api.run("c0", "web", publish_all=True)
    services = tmp_path / "services.json"
    words = ["-ip", "127.10.0.1", "-hostname", "h", f"file://{services}"]
    full, run = FullPipe(), Agent(tmp_path, words, clean_engine.host)
    run.stderr = full.writer
    try:
        run.launch()
        until(lambda: services.exists() and "h:c0:80" in services.read_text(), "an entry")
        run.signal(signal.SIGUSR1)
        full.flow()
        until(lambda: "Current thread" in full.text, lambda: full.text)
        assert "registered web as h:c0:80" in full.text
        assert "in _attend" in full.text
        run.signal(signal.SIGTERM)
        assert run.exited() == 0
    finally:
        run.kill()
        full.close()
    assert full.text.endswith("INFO  ended\n")
