"""Figures of single events on a real engine, beside a minimal agent and another registrator."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.engine import Dockerd
from support.process import Process
from support.servers import free_ports, loopback_ip
from support.wait import until

from benchmarks.agents import HOST, agent
from benchmarks.figure import Figure, median
from benchmarks.meters import Meter
from benchmarks.readers import READERS, Reader
from benchmarks.real import Events, docker
from benchmarks.registries import running
from benchmarks.registry import NAME, Registry

TARGETS = {"consul": (3.0, 2.5), "zookeeper": (4.0, 4.5)}  # ms: visible, gone
OWN, FLOOR, PEER = "own", "floor", "peer"
# Each takes its turn this many times, so that a slower minute of the machine is nobody's.
TURNS = 2
TO_FLOOR = 1.15


@contextmanager
def minimal(engine: Dockerd, scheme: str, address: str) -> Iterator[Process]:
    """A minimal agent that is ready."""
    with tempfile.TemporaryDirectory(prefix="bench-minimal-") as folder:
        words = ["-m", "benchmarks.minimal_agent", str(engine.socket), scheme, address]
        root = str(Path(__file__).resolve().parents[1])
        code = "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); sys.argv.pop(1);"
        code += "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
        process = Process("minimal", Path(folder), [sys.executable, "-c", code, root, *words])
        process.launch()
        try:
            process.wait_log("ready")
            yield process
        finally:
            process.stop()


@contextmanager
def _working(who: str, engine: Dockerd, registry: Registry, peer: str) -> Iterator[None]:
    """The agent, the minimal agent or the peer, ready for events."""
    if who == FLOOR:
        with minimal(engine, registry.scheme, registry.address):
            yield
        return
    with agent(engine.host, registry.uri, peer=peer if who == PEER else "") as process:
        if who == OWN:
            process.wait_log("published ports are registered")
        Meter(registry, [process]).wait_quiet()
        yield


def single(scheme: str, repeats: int, peer: str = "") -> Iterator[Figure]:
    """From the time of an event until a reader sees it, one container after another."""
    took = _measure(scheme, repeats, peer)
    for place, what in enumerate(("start event to visible", "die event to gone")):
        name, own = f"{what}: {scheme}", took[OWN, place]
        floor = median(took[FLOOR, place])
        theirs = median(took[PEER, place]) if peer else None
        target = TARGETS[scheme][place] if theirs is None else min(theirs, TO_FLOOR * floor)
        yield Figure.of(name, own, "ms", base=floor, peer=theirs, target=target)


def _measure(scheme: str, repeats: int, peer: str) -> dict[tuple[str, int], list[float]]:
    """Milliseconds by who did it, and by 0 for visible or 1 for gone."""
    who = [OWN, FLOOR, *([PEER] if peer else [])] * TURNS
    each = -(-repeats // TURNS)
    took: dict[tuple[str, int], list[float]] = defaultdict(list)
    with docker() as engine, running(scheme) as registry:
        events, ip = Events(engine), loopback_ip()
        # Each sample has its own container: repeated starts would count as a restart loop.
        ports = iter(free_ports(ip, len(who) * (each + 1)))
        for turn, one in enumerate(who):
            keys = {}
            for port in (next(ports) for _ in range(each + 1)):
                engine.api.create(
                    f"c{port}", ports={"80/tcp": (ip, port)}, env={"SERVICE_NAME": NAME}
                )
                keys[f"c{port}"] = f"{HOST}:c{port}:80" if scheme == "consul" else f"{ip}:{port}"
            if turn:
                registry.reset()
            reader = READERS[scheme](registry)
            with _working(one, engine, registry, peer):
                for place, samples in enumerate(_samples(engine, events, reader, keys)):
                    took[one, place] += samples
            reader.close()
        events.close()
    return took


def _samples(
    engine: Dockerd, events: Events, reader: Reader, keys: dict[str, str]
) -> Sequence[list[float]]:
    """Milliseconds until visible and until gone, without the first sample as a warm-up."""
    visible: list[float] = []
    gone: list[float] = []
    for name, key in keys.items():
        for present in (True, False):
            reader.expect(key, present)
            (engine.api.start if present else engine.api.kill)(name)
            at = reader.wait([key], present).get(key)
            assert at is not None, f"{key} {'not seen' if present else 'still there'}"
            times = events.started if present else events.died
            until(lambda times=times, name=name: name in times, "its event")  # type: ignore[misc]
            (visible if present else gone).append((at - times[name]) / 1e6)
            time.sleep(0.1)
    return visible[1:], gone[1:]
