"""SIGTERM at random moments: however stderr, engine and registries fare, the agent ends.

Run by ``make faults``. A trial follows from its number, so that it can be run again.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from support.agent import Agent
from support.engine import Dockerd
from support.process import Process
from support.stderr import FullPipe

# Seconds: the target of `make faults`, and the limit beyond which an agent counts as hanging.
TARGET, DEADLINE = 3.0, 60.0
AT_ONCE = 4
STDERRS = ("file", "closed", "full", "slow", "unread")
MOMENTS = ("start", "work", "outage", "end")


class Hangs(AssertionError):
    """An agent did not end. The text has the stacks of its threads."""


class Place(NamedTuple):
    """The peers of all trials' agents: an engine, and addresses that accept and are mute."""

    engine: str
    mute_engine: str
    mute_registry: str


class Trial:
    """One agent and its end."""

    def __init__(self, number: int, place: Place, folder: Path) -> None:
        draw = random.Random(f"end {number}")
        self.number = number
        self.moment, self.stderr = draw.choice(MOMENTS), draw.choice(STDERRS)
        late = self.moment != "start"
        self.delay = draw.uniform(1, 4) if late else draw.uniform(0, 1.5)
        # In its end it gets more signals of all kinds.
        more = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1]
        self.later = [(draw.uniform(0, 0.4), draw.choice(more)) for _ in range(3)]
        self.later = self.later if self.moment == "end" else []
        engine, registries = place.engine, [f"file://{folder}/services.json"]
        if self.moment == "outage":
            engine = draw.choice([engine, place.mute_engine, f"unix://{folder}/nowhere.sock"])
            address = draw.choice([place.mute_registry, "127.0.0.1:1"])
            schemes = ["consul", "consulkv", "etcd", "zookeeper"]
            registries += [f"{scheme}://{address}/s" for scheme in draw.sample(schemes, 2)]
            registries = [uri.removesuffix("/s") if "consul:" in uri else uri for uri in registries]
        words = ["-ip", "127.10.0.1", "-hostname", "h", "-log-level", "debug", *registries]
        closed = ["sh", "-c", 'exec "$0" "$@" 2>&-'] if self.stderr == "closed" else []
        self._agent = Agent(folder, words, engine, prefix=closed)

    def __str__(self) -> str:
        return f"trial {self.number}: {self.moment} after {self.delay:.2f} s, stderr {self.stderr}"

    def run(self) -> float:
        """Run it. Returns the seconds from SIGTERM to the end. Raises `Hangs`."""
        with stderr(self.stderr, self._agent) as self._agent.stderr:
            self._agent.launch()
            try:
                time.sleep(self.delay)
                return self._end()
            finally:
                self._agent.kill()

    def _end(self) -> float:
        began = time.monotonic()
        self._signal(signal.SIGTERM)
        for pause, number in self.later:
            time.sleep(pause)
            self._signal(number)
        while self._agent.running:
            if time.monotonic() - began > DEADLINE:
                self._signal(signal.SIGUSR1)
                time.sleep(1)
                raise Hangs(f"{self} hangs:\n{self._agent.tail(200)}")
            time.sleep(0.01)
        code = self._agent.kill()
        # Before Python runs, a signal has its default effect.
        assert code in (0, *(-n for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1))), (
            f"{self} ended with {code}:\n{self._agent.tail(40)}"
        )
        return time.monotonic() - began

    def _signal(self, number: signal.Signals) -> None:
        if self._agent.running:
            self._agent.signal(number)


@contextlib.contextmanager
def stderr(kind: str, agent: Process) -> Iterator[int | None]:
    """The agent's stderr: None is its log file."""
    if kind == "full":
        full = FullPipe()
        try:
            yield full.writer
        finally:
            full.close()
    elif kind in ("slow", "unread"):
        reader, writer = os.pipe()
        if kind == "slow":
            threading.Thread(target=read_slowly, args=(reader, agent), daemon=True).start()
        else:
            os.close(reader)
        try:
            yield writer
        finally:
            os.close(writer)
    else:
        yield None


def read_slowly(reader: int, agent: Process) -> None:
    """Read 20 pieces of 200 bytes a second."""
    with agent.log_file.open("ab") as log:
        while data := os.read(reader, 200):
            log.write(data)
            log.flush()
            time.sleep(0.05)
    os.close(reader)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Keep every core busy."""
    burn = [sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(burn) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for each in burners:
            each.kill()
            each.wait()


@contextlib.contextmanager
def place(engine: str, folder: Path) -> Iterator[Place]:
    """Listeners that accept and say nothing, beside the engine."""
    path = folder / "mute.sock"
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as tcp:
        unix.bind(str(path))
        tcp.bind(("127.0.0.1", 0))
        for listener in (unix, tcp):
            listener.listen(1000)
        host, port = tcp.getsockname()
        yield Place(engine, f"unix://{path}", f"{host}:{port}")


def run(numbers: Sequence[int], place: Place, folder: Path) -> list[tuple[Trial, float]]:
    """Run trials, some at once. Returns each with its seconds. Raises `Hangs`."""

    def one(number: int) -> tuple[Trial, float]:
        trial = Trial(number, place, folder / f"trial{number}")
        return trial, trial.run()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, numbers))


def main() -> int:
    """Run as many trials as asked, on busy cores, and print what each kind took."""
    parser = argparse.ArgumentParser(prog="faults.ends", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first one's number (0)")
    given = parser.parse_args()
    print(f"{given.trials} agents get SIGTERM, from number {given.first} on", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ends-") as name:
        engine = Dockerd(Path(name) / "engine")
        try:
            engine.start()
            engine.api.import_image("web", expose=[80])
            for number in range(5):
                engine.api.run(f"c{number}", publish_all=True)
            with busy(), place(engine.host, Path(name)) as where:
                numbers = range(given.first, given.first + given.trials)
                done = run(numbers, where, Path(name))
        finally:
            engine.remove()
    took = collections.defaultdict(list)
    for trial, seconds in done:
        for kind in (trial.moment, f"stderr {trial.stderr}", "all"):
            took[kind].append(seconds)
    for kind, each in sorted(took.items()):
        median = statistics.median(each)
        print(f"{kind:>14}: {len(each):>4} ended, median {median:.2f} s, most {max(each):.2f} s")
    late = [trial for trial, seconds in done if seconds > TARGET]
    print(*(f"later than {TARGET:g} s: {trial}" for trial in late), sep="\n", end="")
    print(f"{len(done)} in {(time.monotonic() - began) / 60:.1f} min, {len(late)} later than 3 s")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
