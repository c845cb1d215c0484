"""Figures of an agent that somebody looks at: its memory, and the processor time of a look."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator

from support.servers import free_ports, loopback_ip

from benchmarks.agents import IP, agent, processor, resident
from benchmarks.figure import Figure
from benchmarks.registries import running
from benchmarks.simulated import simulated
from benchmarks.starting import settle

# Seconds between two looks of the page, and between two of Prometheus.
PAGE, SCRAPE = 2.0, 5.0

GROWTH = 2.0


class Looker:
    """A browser that shows the page, and a Prometheus."""

    def __init__(self, host: str, port: int) -> None:
        self._where = host, port
        self._tag = ""
        self.looks = self.bytes = 0

    def page(self) -> None:
        """Ask for the state as the page does."""
        headers = {"Accept-Encoding": "gzip", "If-None-Match": self._tag}
        self._tag = self._get("/api/state", headers) or self._tag
        self.looks += 1

    def scrape(self) -> None:
        """Ask for the metrics as Prometheus does."""
        self._get("/metrics", {"Accept-Encoding": "gzip"})

    def _get(self, path: str, headers: dict[str, str]) -> str:
        connection = http.client.HTTPConnection(*self._where, timeout=60)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            self.bytes += len(answer.read())
            return answer.getheader("ETag", "")
        finally:
            connection.close()


def rows(scheme: str, n: int, seconds: float) -> Iterator[Figure]:
    """The costs of looking at an agent with `n` services, for so many seconds."""
    host = loopback_ip()
    (port,) = free_ports(host, 1)
    words = ("-ip", IP, "-http", f"{host}:{port}", "-resync", "1000000")
    with running(scheme) as registry, simulated(n) as engine:
        with agent(engine.host, *words, registry.uri) as process:
            settle(registry, n, process)
            time.sleep(3)
            before, began = resident(process.pid), processor(process.pid)
            time.sleep(seconds)
            alone = processor(process.pid) - began
            looker = Looker(host, port)
            began, levels = processor(process.pid), []
            end = time.monotonic() + seconds
            next_scrape = 0.0
            while (now := time.monotonic()) < end:
                looker.page()
                if now >= next_scrape:
                    looker.scrape()
                    next_scrape = now + SCRAPE
                levels.append(resident(process.pid))
                time.sleep(PAGE)
            spent = processor(process.pid) - began - alone
    name = f"{n:,} containers: {scheme}"
    middle = levels[len(levels) // 2]
    yield Figure(
        f"memory that the page and Prometheus add, {name}", max(levels) - before, "MiB", GROWTH,
        note=f"{before:.1f} before, {levels[0]:.1f} with the first look, {middle:.1f} halfway, "
        f"{levels[-1]:.1f} at the end, after {seconds:.0f} s",
    )  # fmt: skip
    yield Figure(
        f"processor time of a look, {name}", spent / looker.looks * 1000, "ms", n=looker.looks,
        note=f"{looker.bytes / looker.looks / 1024:.1f} KB a look, scrapes included",
    )  # fmt: skip
