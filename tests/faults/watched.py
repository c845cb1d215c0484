"""Ordinary coming and going, watched: no alert fires, and the agent's memory stays level.

Run by ``make soak``. A Chromium shows the page of an agent, and a Prometheus scrapes it every 5 s
with the real rules. Beside it, a second agent does the same work while nobody watches it.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from support.agent import Agent
from support.browser import Open, Tab, browsing
from support.docker_api import DockerAPI
from support.engine import Dockerd
from support.prometheus import ALERTS, NOT_YET, Prometheus
from support.servers import Consul, Etcd, Server, free_ports, loopback_ip
from support.wait import until

from faults.usage import HEADING, ROW, Usage, flat, row, thirds, usage_of

NAMES = ("web", "api", "shop", "mail")
MOST = 6

# Seconds: between two scrapes, before anybody watches, and between two looks at the memory.
SCRAPE, ALONE, LOOK = 5, 60.0, 5.0
ROWS = 6

# MiB that a watched agent may take more than one alone, and that this may grow after the warm-up.
ADDED, FLAT = 2.0, 0.5

COLUMNS = "{:>8}  {:>10}"


class Fleet:
    """Containers of a few services, which somebody scales, restarts and replaces by turns."""

    def __init__(self, api: DockerAPI, draw: random.Random) -> None:
        self._api, self._draw = api, draw
        self._running: dict[str, list[str]] = {name: [] for name in NAMES}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._churn)
        self.started = 0
        self._error: Exception | None = None

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Start two of each, and change them until the end of the block."""
        for name in 2 * NAMES:
            self._add(name)
        self._thread.start()
        try:
            yield
        finally:
            self.settle()

    def check(self) -> None:
        """Raise what ended the changes too early."""
        if self._error is not None:
            raise self._error

    def settle(self) -> None:
        """Change nothing any more."""
        self._stop.set()
        self._thread.join()

    @property
    def size(self) -> int:
        """How many containers with a published port run."""
        return sum(map(len, self._running.values()))

    def _churn(self) -> None:
        acts = (self._scale_up, self._scale_down, self._restart, self._replace, self._job)
        try:
            while not self._stop.wait(self._draw.uniform(1, 6)):
                self._draw.choice(acts)(self._draw.choice(NAMES))
        except Exception as error:
            self._error = error

    def _add(self, name: str) -> None:
        self.started += 1
        made = f"{name}-{self.started}"
        self._api.run(made, publish_all=True, env={"SERVICE_NAME": name, "SERVICE_TAGS": "v1"})
        self._running[name].append(made)

    def _remove(self, name: str) -> None:
        oldest = self._running[name].pop(0)
        self._api.stop(oldest)
        self._api.remove(oldest)

    def _scale_up(self, name: str) -> None:
        if len(self._running[name]) < MOST:
            self._add(name)

    def _scale_down(self, name: str) -> None:
        if len(self._running[name]) > 1:
            self._remove(name)

    def _restart(self, name: str) -> None:
        self.started += 1
        self._api.restart(self._running[name][0])

    def _replace(self, name: str) -> None:
        """A rolling update: for each container a new one starts, and then the old one stops."""
        for _ in range(len(self._running[name])):
            self._add(name)
            self._remove(name)

    def _job(self, name: str) -> None:
        """A container that publishes nothing and ends by itself."""
        self.started += 1
        command = ("sleep", "2")
        self._api.run(f"{name}-job-{self.started}", command=command, AutoRemove=True)


class Trial:
    """An engine, its containers, and two agents that register them in Consul and in etcd."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.engine = Dockerd(folder / "engine")
        self.fleet = Fleet(self.engine.api, random.Random(1))
        ip = loopback_ip()
        self.target = f"{ip}:{free_ports(ip, 1)[0]}"
        self._etcd = Etcd(folder / "etcd")
        # Each has a Consul of its own, so that neither finds a second host with its engine's id.
        self._consuls = [Consul(folder / name, name=name) for name in ("consul", "consul-alone")]
        self.watched = self._agent("watched", self._consuls[0], "-http", self.target)
        self.alone = self._agent("alone", self._consuls[1])
        rules = ALERTS.read_text()
        self.prometheus = Prometheus(folder / "prometheus", self.target, rules, SCRAPE)

    def _agent(self, name: str, consul: Consul, *words: str) -> Agent:
        uris = f"consul://{consul.address}", f"etcd://{self._etcd.address}/{name}"
        return Agent(
            self._folder, ["-ip", "127.10.0.1", *words, *uris], self.engine.host, name=name
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run it until the end of the block."""
        servers: list[Server] = [self._etcd, *self._consuls, self.engine]
        try:
            for server in servers:
                server.start()
            self.engine.api.import_image("web", expose=[80])
            for agent in (self.watched, self.alone):
                agent.start()
            with self.fleet.changing():
                yield
        finally:
            for each in (self.prometheus, self.watched, self.alone, *servers):
                each.kill()
            self.engine.remove()

    def difference(self) -> float:
        """MiB that the watched agent takes more than the other one."""
        return usage_of(self.watched).memory - usage_of(self.alone).memory

    def row(self, seconds: float, text: str) -> str:
        """A line of the table."""
        label = COLUMNS.format(f"{seconds / 60:.1f}", self.fleet.started)
        alone = usage_of(self.alone).memory
        return f"{row(label, usage_of(self.watched))}  {alone:>5.1f} MiB  {text}"


def watch(trial: Trial, open_tab: Open, seconds: float) -> bool:
    """Let it be watched, and print a row now and then. Returns whether all is as it has to be."""
    before = trial.difference()
    print(ROW.format(COLUMNS.format("minutes", "containers"), *HEADING), "     alone  alerts")
    print(trial.row(0, "nobody watches yet"), flush=True)
    trial.prometheus.start()
    tab = open_tab(f"http://{trial.target}/")
    usages: list[tuple[float, Usage]] = []
    added: list[tuple[float, float]] = []  # MiB more than the one alone, at each moment
    start = time.monotonic()
    for number in range(ROWS + 1):
        while not usages or usages[-1][0] < number * seconds / ROWS:
            time.sleep(LOOK)
            trial.fleet.check()
            usages.append((time.monotonic() - start, usage_of(trial.watched)))
            added.append((usages[-1][0], trial.difference() - before))
        fired = ", ".join(sorted(trial.prometheus.fired())) or "none"
        print(trial.row(usages[-1][0], fired), flush=True)
    trial.fleet.settle()
    fine = within(usages, added)
    return all((fine, seen(trial, tab), not trial.prometheus.fired()))


def within(usages: list[tuple[float, Usage]], added: list[tuple[float, float]]) -> bool:
    """Print the agent's resources and what watching adds, and return whether both are in bounds.

    An agent's memory grows slowly at first, watched or not: `flat` allows for that. What watching
    adds has no such reason.
    """
    lasted = usages[-1][0]
    most = max(more for _, more in added)
    early, late = map(statistics.median, thirds(added, lasted))
    level = flat(usages, lasted)
    print(
        f"watching added {most:.1f} MiB at most, {ADDED:g} allowed; {late - early:+.1f} MiB after "
        f"the warm-up, {FLAT:g} allowed"
    )
    return level and most <= ADDED and late - early <= FLAT


def seen(trial: Trial, tab: Tab) -> bool:
    """Print what Prometheus, page and containers have seen, and return whether they agree."""
    prometheus, fleet = trial.prometheus, trial.fleet
    registered = 'registrator_registry_entries{state="registered"}'
    until(
        lambda: [value for _, value in prometheus.query(registered)] == [fleet.size] * 2,
        lambda: f"{fleet.size} entries, and not {prometheus.query(registered)}",
        ignore=NOT_YET,
    )
    verdict = f"All {fleet.size} services stand in both registries"
    tab.until(f"document.getElementById('verdict').textContent === {verdict!r}")
    scrapes = prometheus.value("count_over_time(up[1d])")
    missed = prometheus.value("count_over_time((up == 0)[1d:])") or 0
    visible = "max(histogram_quantile(0.99, registrator_event_to_visible_seconds_bucket))"
    print(
        f"{scrapes:g} scrapes, {missed:g} of them failed; the page asked "
        f"{tab.run('asked.length')} times; {fleet.started} containers started; 99 % of "
        f"their events were visible after {prometheus.value(visible):.2g} s at most"
    )
    return not tab.errors()


def main() -> int:
    """Run the trial. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="faults.watched", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long (60)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="watched-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        trial = Trial(folder)
        with trial.running(), browsing(folder) as open_tab:
            time.sleep(ALONE)
            good = watch(trial, open_tab, given.minutes * 60)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
