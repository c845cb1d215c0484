"""Figures of a start: cold with many containers, the first registration, a storm of starts.

All use the simulated engine. The floor contains the engine's own time.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime

from support.agent import Agent

from benchmarks.agents import HOST, IP, Host, agent
from benchmarks.figure import Figure, median
from benchmarks.http_client import Client, request
from benchmarks.readers import READERS
from benchmarks.registries import running
from benchmarks.registry import Registry
from benchmarks.sim_engine import HOST_PORT, container_id
from benchmarks.simulated import SimEngine, simulated

DEADLINE = 120.0
# The agent logs after each write, either a service or the number of services.
LINE = re.compile(r"^(\S+) INFO .*: (?:registered |(\d+) registered)", re.MULTILINE)


def registered(process: Agent) -> int:
    """How many services the agent says it has registered."""
    return sum(int(number or 1) for _, number in LINE.findall(process.log))


def settle(
    registry: Registry, wanted: int, process: Agent, host: Host | None = None
) -> tuple[float, int]:
    """Wait until `wanted` services stand. Returns the moment (of `time.time`) and the number.

    With a `host`, only its services count.

    It asks the registry only after the agent has logged a registration, and returns the moment of
    that line. Constant requests would slow the registry down.
    """
    end = time.monotonic() + DEADLINE
    logged = stand = 0
    while time.monotonic() < end and process.running:
        lines = LINE.findall(process.log)
        if len(lines) > logged:
            logged = len(lines)
            stand = registry.count(host)
            if stand >= wanted:
                return datetime.fromisoformat(lines[-1][0]).timestamp(), stand
        time.sleep(0.005)
    return time.time(), stand


def docker_floor(engine: SimEngine, numbers: range) -> float:
    """Seconds to list the engine and to inspect these containers, without parsing."""
    client = Client(engine.socket)
    began = time.perf_counter()
    client.ask(request("GET", "/v1.41/containers/json"))
    for number in numbers:
        status, _ = client.ask(request("GET", f"/v1.41/containers/{container_id(number)}/json"))
        assert status == 200
    took = time.perf_counter() - began
    client.close()
    return took


def python_floor() -> float:
    """Seconds for the start and the end of an interpreter."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", ""], check=True)
    return time.perf_counter() - began


def cold(scheme: str, n: int, repeats: int) -> Iterator[Figure]:
    """From the start of the process until the last of `n` services."""
    took, floors = [], []
    with running(scheme) as registry, simulated(n) as engine:
        for _ in range(repeats):
            floors.append(registry.floor(n) + docker_floor(engine, range(n)) + python_floor())
            registry.reset()
            began = time.time()
            with agent(engine.host, "-ip", IP, registry.uri) as process:
                done, stand = settle(registry, n, process)
                assert stand == n, f"{stand} of {n} stand; {process.tail()}"
                took.append(done - began)
    bound = {"times": 1.1} if scheme == "consul" else {"target": 1.0 if n <= 1000 else 5.0}
    name = f"cold start, {n:,} containers: {scheme}"
    yield Figure.of(name, took, "s", base=median(floors), **bound)


def first(scheme: str, repeats: int, peer: str = "") -> Iterator[Figure]:
    """From the start of the process until its only service, also of another registrator."""
    took: dict[str, list[float]] = {"": [], **({peer: []} if peer else {})}
    floors = []
    with running(scheme) as registry, simulated(1) as engine:
        key = f"{HOST}:bench-0:80" if scheme == "consul" else f"{IP}:{HOST_PORT}"
        for _ in range(repeats):
            floors.append(python_floor() + docker_floor(engine, range(1)))
            for who, found in took.items():
                registry.reset()
                reader = READERS[scheme](registry)
                reader.expect(key, True)
                began = time.time_ns()
                with agent(engine.host, "-ip", IP, registry.uri, peer=who):
                    seen = reader.wait([key], True)
                    found += [(at - began) / 1e9 for at in seen.values()]
                reader.close()
    yield Figure.of(
        f"process start to first registration: {scheme}", took[""], "s", target=0.35,
        base=median(floors), peer=median(took[peer]) if peer else None,
        note="the floor is an empty interpreter's start",
    )  # fmt: skip


def storm(scheme: str, n: int, repeats: int) -> Iterator[Figure]:
    """`n` containers start within 50 ms under a running agent."""
    took, floors, missing = [], [], 0
    with running(scheme) as registry:
        for _ in range(repeats):
            with simulated(n + 1, 1) as engine:
                floor = registry.floor(n)
                registry.reset()
                with agent(engine.host, "-ip", IP, registry.uri) as process:
                    settle(registry, 1, process)
                    times = engine.start(1, n, 0.05)
                    done, stand = settle(registry, n + 1, process)
                    took.append(done - times["first"] / 1e9)
                    missing += n + 1 - stand
                floors.append(floor + docker_floor(engine, range(1, n + 1)))
    bound = {"times": 1.1} if scheme == "consul" else {"target": 0.6}
    name = f"{n:,} starts within 50 ms: {scheme}"
    yield Figure(f"{name}, missing", missing, "", 0)
    yield Figure.of(f"{name}, all visible", took, "s", base=median(floors), **bound)
