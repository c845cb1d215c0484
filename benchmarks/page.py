"""Figures of the page in a real Chromium."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.browser import browsing
from support.servers import free_ports, loopback_ip

from benchmarks.agents import IP, agent
from benchmarks.figure import Figure
from benchmarks.registries import running
from benchmarks.simulated import simulated
from benchmarks.starting import settle

# Seconds from the call of the page until all rows are drawn.
TARGET = 1.0

# The moment of the first frame that has all rows, in ms since the call of the page.
SIGHT = """new Promise((done) => {
  const look = () => document.querySelectorAll("tbody").length === %d
    ? setTimeout(() => done(performance.now())) : requestAnimationFrame(look);
  look();
})"""


def rows(scheme: str, n: int, repeats: int) -> Iterator[Figure]:
    """The time to draw an agent's `n` containers."""
    host = loopback_ip()
    (port,) = free_ports(host, 1)
    words = ("-ip", IP, "-http", f"{host}:{port}")
    with running(scheme) as registry, simulated(n) as engine:
        with (
            agent(engine.host, *words, registry.uri) as process,
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            browsing(Path(folder)) as open_tab,
        ):
            settle(registry, n, process)
            samples = []
            for _ in range(repeats):
                tab = open_tab(f"http://{host}:{port}/")
                tab.until("typeof look === 'function'")
                samples.append(tab.run(SIGHT % n) / 1000)
                tab.close()
    yield Figure.of(
        f"draw {n:,} containers in Chromium: {scheme}", samples, "s", target=TARGET,
    )  # fmt: skip
