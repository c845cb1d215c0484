"""Figures on a real engine: single events, and a burst of containers."""

from __future__ import annotations

import concurrent.futures
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from support.engine import Dockerd
from support.process import Process
from support.servers import free_ports, loopback_ip
from support.wait import until

from benchmarks.agents import HOST, agent
from benchmarks.figure import Figure, median, spread
from benchmarks.http_client import Client, request
from benchmarks.minimal_agent import EVENTS
from benchmarks.registries import NAME, READERS, Reader, running

TARGETS = {"consul": (3.0, 2.5), "zookeeper": (4.0, 4.5)}  # ms: visible, gone
THREADS = 16


class Events:
    """Notes when each container started and died, by name, in ns of the engine's clock."""

    def __init__(
        self, engine: Dockerd, heard: Callable[[str, bool], None] = lambda name, start: None
    ) -> None:
        self.started: dict[str, int] = {}
        self.died: dict[str, int] = {}
        self._heard = heard
        self._client = Client(engine.socket)
        query = urlencode({"filters": json.dumps(EVENTS)})
        self._client.send(request("GET", f"/v1.41/events?{query}"))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        self._client.sock.settimeout(None)
        with self._client.sock.makefile("rb") as lines:
            for line in lines:
                if line.startswith(b"{"):
                    event: dict[str, Any] = json.loads(line)
                    name, start = event["Actor"]["Attributes"]["name"], event["Action"] == "start"
                    (self.started if start else self.died)[name] = event["timeNano"]
                    self._heard(name, start)

    def close(self) -> None:
        """Stop listening."""
        self._client.sock.shutdown(2)


@contextmanager
def docker() -> Iterator[Dockerd]:
    """An engine with the image ``web``. It is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-docker-") as folder:
        engine = Dockerd(Path(folder))
        try:
            engine.start()
            engine.api.import_image("web", expose=[80])
            yield engine
        finally:
            engine.remove()


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


def single(scheme: str, repeats: int) -> Iterator[Figure]:
    """From the time of an event until a reader sees it, one container after another."""
    keys = {}
    with docker() as engine, running(scheme) as registry:
        reader, events = READERS[scheme](registry), Events(engine)
        ip = loopback_ip()
        # Each sample has its own container: repeated starts would count as a restart loop.
        for name, port in ((f"c{port}", port) for port in free_ports(ip, 2 * repeats + 2)):
            engine.api.create(name, ports={"80/tcp": (ip, port)}, env={"SERVICE_NAME": NAME})
            keys[name] = f"{HOST}:{name}:80" if scheme == "consul" else f"{ip}:{port}"
        names = list(keys)
        with agent(engine.host, registry.uri) as process:
            process.wait_log("published ports are registered")
            chosen = {name: keys[name] for name in names[: repeats + 1]}
            visible, gone = _samples(engine, events, reader, chosen)
        registry.reset()
        reader.close()
        reader = READERS[scheme](registry)
        address = registry.uri.removeprefix(f"{scheme}://").partition("/")[0]
        with minimal(engine, scheme, address):
            chosen = {name: keys[name] for name in names[repeats + 1 :]}
            floors = _samples(engine, events, reader, chosen)
        reader.close()
        events.close()
    for what, took, floor, target in zip(
        ("start event to visible", "die event to gone"),
        (visible, gone),
        floors,
        TARGETS[scheme],
        strict=True,
    ):
        note = spread(took, "ms")
        yield Figure(f"{what}: {scheme}", median(took), "ms", target, median(floor), note=note)


def _samples(
    engine: Dockerd, events: Events, reader: Reader, keys: Mapping[str, str]
) -> tuple[list[float], list[float]]:
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


def burst(scheme: str, n: int) -> Iterator[Figure]:
    """`n` containers. `THREADS` threads start all of them, and then kill all of them."""
    ip = loopback_ip()
    ports = dict(zip((f"b{i}" for i in range(n)), free_ports(ip, n), strict=True))

    def key(name: str) -> str:
        return f"{HOST}:{name}:80" if scheme == "consul" else f"{ip}:{ports[name]}"

    with docker() as engine, running(scheme) as registry:
        reader = READERS[scheme](registry)
        events = Events(engine, lambda name, start: reader.expect(key(name), start))
        with agent(engine.host, "-resync", "0", registry.uri) as process:
            process.wait_log("published ports are registered")

            def run(name: str) -> None:
                engine.api.run(
                    name, ports={"80/tcp": (ip, ports[name])}, env={"SERVICE_NAME": NAME}
                )

            with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(run, ports))
                seen = reader.wait(map(key, ports), True)
                late = {name: at for name, at in events.started.items() if key(name) in seen}
                last = max(late, key=late.__getitem__)
                stood = registry.count()
                list(pool.map(engine.api.kill, ports))
                reader.wait(map(key, ports), False)
                stale = registry.count()
        reader.close()
        events.close()
    took = [(seen[key(name)] - at) / 1e6 for name, at in late.items()]
    name = f"burst of {n} containers: {scheme}"
    yield Figure(f"{name}, missing", n - stood, "", 0)
    yield Figure(f"{name}, stale", stale, "", 0)
    note = f"all: median {median(took):.3g} ms, {spread(took, 'ms')}"
    after = (seen[key(last)] - late[last]) / 1e6
    yield Figure(f"{name}, last visible after its event", after, "ms", 20, note=note)
