"""The agents under measurement, with their memory and processor time."""

from __future__ import annotations

import re
import shlex
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.agent import Agent

# An agent without ``-hostname`` calls itself this, so other registrators use the same ids.
HOST = socket.gethostname()
# The agent registers the ports of the simulated engine's containers at this address.
IP = "192.0.2.1"


@dataclass(frozen=True)
class Host:
    """One host of a fleet, by its number."""

    number: int

    @property
    def name(self) -> str:
        return f"host-{self.number}"

    @property
    def engine(self) -> str:
        """The id of its Docker engine."""
        return f"SIMU:LATE:DENG:INES:{self.number:08d}"

    @property
    def ip(self) -> str:
        return f"10.{self.number >> 16}.{self.number >> 8 & 255}.{self.number & 255}"

    @property
    def words(self) -> tuple[str, ...]:
        """The agent's options."""
        return ("-hostname", self.name, "-ip", self.ip)


class Peer(Agent):
    """Another registrator. `command` are its first words."""

    def __init__(self, folder: Path, command: str, words: tuple[str, ...], docker_host: str):
        super().__init__(folder, words, docker_host, name="peer")
        self._command = [*shlex.split(command), *words]


@contextmanager
def agent(docker_host: str, *words: str, peer: str = "") -> Iterator[Agent]:
    """Launch an agent without waiting for it. It must not log a traceback until its end.

    With `peer`, the command of another registrator runs instead, with the same `words`.
    """
    with tempfile.TemporaryDirectory(prefix="bench-agent-") as folder:
        if peer:
            made: Agent = Peer(Path(folder), peer, words, docker_host)
        else:
            named = words if "-hostname" in words else ("-hostname", HOST, *words)
            made = Agent(Path(folder), named, docker_host)
        made.launch()
        try:
            yield made
        finally:
            made.stop()
        if "Traceback" in made.log:
            raise AssertionError(made.tail(40))


def resident(pid: int) -> float:
    """Resident memory in MiB."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> float:
    """The highest resident memory so far, in MiB."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(rf"{name}:\s+(\d+) kB", status)
    assert match is not None, status
    return int(match[1]) / 1024


def processor(pid: int) -> float:
    """Processor seconds of a process, with its ended threads, to the nanosecond."""
    # The id that clock_getcpuclockid(3) gives for another process.
    return time.clock_gettime(~pid << 3 | 2)
