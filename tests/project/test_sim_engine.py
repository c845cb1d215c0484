"""The simulated engine of the benchmarks is as good as a real one, as far as it goes."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.agent import Agent
from support.engine import Dockerd
from support.wait import until

from benchmarks.record import start
from benchmarks.sim_engine import HOST_PORT
from benchmarks.simulated import SimEngine, simulated

RunAgent = Callable[..., Agent]
N = 50


def registered(path: Path) -> list[Any]:
    """The content of the file registry, but for the engine's id, which no two share."""
    groups = json.loads(path.read_text()) if path.exists() else []
    for group in groups:
        assert group["labels"].pop("__meta_registrator_owner")
        assert group["labels"].pop("__meta_registrator_host")
    return sorted(groups, key=str)


def settled(path: Path, size: int) -> list[Any]:
    """The registry's content once it has so many entries."""
    until(lambda: len(registered(path)) == size, lambda: f"{size}: {registered(path)}")
    return registered(path)


def test_it_gives_the_same_result_as_a_real_engine(
    clean_engine: Dockerd, agent: RunAgent, tmp_path: Path
) -> None:
    real, simulation = tmp_path / "real.json", tmp_path / "simulation.json"
    words = ("-ip", "192.0.2.1", "-hostname", "h", "-resync", "0")
    made = [start(clean_engine.api, number) for number in range(N // 2)]
    agent(*words, f"file://{real}")
    with simulated(N, N // 2) as engine:
        agent(*words, f"file://{simulation}", docker_host=engine.host)
        assert settled(simulation, N // 2) == settled(real, N // 2)
        made += [start(clean_engine.api, number) for number in range(N // 2, N)]
        engine.start(N // 2, N - N // 2)
        assert settled(simulation, N) == settled(real, N)
        assert str(HOST_PORT + N - 1) in str(registered(real))
        for each in made[10:20]:
            clean_engine.api.kill(each)
        engine.die(10, 10)
        assert settled(simulation, N - 10) == settled(real, N - 10)
        assert engine.asked()["inspect"] >= N


def ask(engine: SimEngine, request: str) -> int:
    """The status of a GET."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(engine.socket))
    connection.request("GET", request)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    "request_",
    [
        "/v1.41/containers/list",
        "/v1.99/info",
        "/v1.41/containers/json?al=1",
        "/v1.41/events?filter=%7B%7D",
        "/v1.41/events?since=yesterday",
        "/v1.41/events?filters=%7B%22type%22%3A%5B%22contaner%22%5D%7D",
    ],
)
def test_it_refuses_what_no_engine_understands(request_: str, tmp_path: Path) -> None:
    engine = SimEngine(tmp_path, 1, 1)
    try:
        assert ask(engine, "/v1.41/info") == 200
        assert ask(engine, request_) == 400
        with pytest.raises(AssertionError, match="no engine would understand"):
            engine.asked()
    finally:
        engine.close()
