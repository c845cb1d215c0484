"""A real engine with its events, and the figures of a burst of containers on it."""

from __future__ import annotations

import concurrent.futures
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from support.engine import Dockerd
from support.servers import free_ports, loopback_ip

from benchmarks.agents import HOST, agent
from benchmarks.figure import Figure, median
from benchmarks.http_client import Client, request
from benchmarks.meters import Meter
from benchmarks.minimal_agent import EVENTS
from benchmarks.readers import READERS
from benchmarks.registries import running
from benchmarks.registry import NAME

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


@dataclass(frozen=True)
class Burst:
    """The result of a burst: services missing and stale, and milliseconds after their events."""

    missing: int
    stale: int
    last: float
    every: Sequence[float]


def burst(scheme: str, n: int, peer: str = "") -> Iterator[Figure]:
    """`n` containers. `THREADS` threads start all of them, and then kill all of them."""
    own = _burst(scheme, n, "")
    theirs = _burst(scheme, n, peer) if peer else None
    name = f"burst of {n} containers: {scheme}"
    for what in ("missing", "stale"):
        other = getattr(theirs, what) if theirs else None
        yield Figure(f"{name}, {what}", getattr(own, what), "", 0, peer=other)
    least, most = min(own.every), max(own.every)
    yield Figure(
        f"{name}, last visible after its event", own.last, "ms", 20,
        peer=theirs.last if theirs else None,
        note=f"all: median {median(own.every):.3g} ms, {least:.3g} to {most:.3g} ms",
    )  # fmt: skip


def _burst(scheme: str, n: int, peer: str) -> Burst:
    ip = loopback_ip()
    ports = dict(zip((f"b{i}" for i in range(n)), free_ports(ip, n), strict=True))

    def key(name: str) -> str:
        return f"{HOST}:{name}:80" if scheme == "consul" else f"{ip}:{ports[name]}"

    with docker() as engine, running(scheme) as registry:
        reader = READERS[scheme](registry)
        events = Events(engine, lambda name, start: reader.expect(key(name), start))
        with agent(engine.host, "-resync", "0", registry.uri, peer=peer) as process:
            if not peer:
                process.wait_log("published ports are registered")
            Meter(registry, [process]).wait_quiet()

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
    return Burst(n - stood, stale, (seen[key(last)] - late[last]) / 1e6, took)
