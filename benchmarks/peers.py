"""The agent beside another registrator: cold start, processor time, memory.

A peer is a command that takes the agent's options and then a registry URI. It reads the engine's
address from ``DOCKER_HOST``. Nothing is known of its log, so both are watched in the registry.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from support.agent import Agent

from benchmarks.agents import IP, agent, processor, resident
from benchmarks.figure import Figure, median
from benchmarks.registries import running
from benchmarks.registry import Registry
from benchmarks.simulated import simulated

RESYNC = 20
DEADLINE = 120.0
LEAST, MOST = 0.01, 0.5


def cold(scheme: str, n: int, repeats: int, peer: str) -> Iterator[Figure]:
    """From the start of the process until the last of `n` services, in turn."""
    took: dict[str, list[float]] = {"": [], peer: []}
    with running(scheme) as registry, simulated(n) as engine:
        for _ in range(repeats):
            for who, found in took.items():
                registry.reset()
                began = time.monotonic()
                with agent(engine.host, "-ip", IP, registry.uri, peer=who) as process:
                    found.append(stand(registry, n, process) - began)
    name = f"cold start, {n:,} containers: {scheme}"
    yield Figure.of(name, took[""], "s", base=median(took[peer]))


def stand(registry: Registry, wanted: int, process: Agent) -> float:
    """Wait until `wanted` services stand. Returns the moment of `time.monotonic`.

    Constant requests would slow the registry down. So each wait is half of the time that is left
    at the present rate.
    """
    began = time.monotonic()
    while (found := registry.count()) < wanted:
        now = time.monotonic()
        if now > began + DEADLINE or not process.running:
            raise TimeoutError(f"{found} of {wanted} stand; {process.tail()}")
        left = (now - began) * (wanted - found) / found if found else LEAST
        time.sleep(min(MOST, max(LEAST, left / 2)))
    return time.monotonic()


def idle(scheme: str, n: int, seconds: int, peer: str) -> Iterator[Figure]:
    """Processor time and memory with `n` services and no changes, with a resync at times."""
    used: dict[str, float] = {}
    memory: dict[str, float] = {}
    with running(scheme) as registry, simulated(n) as engine:
        for who in ("", peer):
            registry.reset()
            words = ("-ip", IP, "-resync", str(RESYNC), registry.uri)
            with agent(engine.host, *words, peer=who) as process:
                stand(registry, n, process)
                time.sleep(3)
                before = processor(process.pid)
                time.sleep(seconds)
                used[who] = (processor(process.pid) - before) / seconds * 1000
                memory[who] = resident(process.pid)
    name = f"idle with {n:,} containers: {scheme}"
    note = f"over {seconds} s with -resync {RESYNC}"
    yield Figure(f"{name}, processor time a second", used[""], "ms", base=used[peer], note=note)
    yield Figure(f"{name}, memory", memory[""], "MiB", base=memory[peer])
