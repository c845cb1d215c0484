"""The agent under measurement, with its memory and processor time."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.agent import Agent

# The agent registers the ports of the simulated engine's containers at this address.
IP = "192.0.2.1"
HOST = "h"


@contextmanager
def agent(docker_host: str, *words: str) -> Iterator[Agent]:
    """Launch an agent without waiting for it. It must not log a traceback until its end."""
    with tempfile.TemporaryDirectory(prefix="bench-agent-") as folder:
        made = Agent(Path(folder), ["-hostname", HOST, *words], docker_host)
        made.launch()
        try:
            yield made
        finally:
            made.stop()
        if "Traceback" in made.log:
            raise AssertionError(made.tail(40))


def resident(pid: int) -> float:
    """Resident memory in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert match is not None, status
    return int(match[1]) / 1024


def processor(pid: int) -> float:
    """Processor seconds of all living threads, with the resolution of a nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
