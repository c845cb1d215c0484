"""The use of agents and of a registry: processor time, requests and bytes over a span of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, replace

from support.agent import Agent

from benchmarks.agents import processor
from benchmarks.registry import Registry

# A process is quiet if it uses less than this part of a core.
QUIET = 0.02
DEADLINE = 600.0


@dataclass(frozen=True)
class Usage:
    """Use up to a moment, or over a span: seconds, processor seconds, requests and bytes."""

    seconds: float = 0.0
    agent: float = 0.0
    server: float = 0.0
    requests: float = 0.0
    received: float = 0.0

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def without(self, idle: Usage) -> Usage:
        """The use beyond what an `idle` span tells for as many seconds. Never below 0."""
        scale = self.seconds / idle.seconds if idle.seconds else 0.0
        own, rest = astuple(self)[1:], astuple(idle)[1:]
        pairs = zip(own, rest, strict=True)
        return Usage(self.seconds, *(max(0.0, a - b * scale) for a, b in pairs))

    def __truediv__(self, number: float) -> Usage:
        return Usage(*(each / number for each in astuple(self)))


class Meter:
    """Reads what has been used up to now. `received` counts the bytes from the registry."""

    def __init__(
        self,
        registry: Registry,
        agents: Iterable[Agent] = (),
        received: Callable[[], int] = lambda: 0,
    ) -> None:
        self.registry = registry
        self.agents = [*agents]
        self._received = received

    def of_agents(self) -> float:
        """Processor seconds of all agents."""
        return sum(processor(each.pid) for each in self.agents)

    def over(self, seconds: float) -> Usage:
        """The use while this many seconds pass."""
        return self.during(lambda: time.sleep(seconds))

    def during(self, work: Callable[[], object]) -> Usage:
        """The use while this work is done. A look at the requests costs the server some time."""
        requests = self.registry.requests()
        before = self._read()
        work()
        used = self._read() - before
        return replace(used, requests=self.registry.requests() - requests)

    def _read(self) -> Usage:
        server, received = processor(self.registry.server.pid), self._received()
        return Usage(time.monotonic(), self.of_agents(), server, received=received)

    def wait_quiet(self, seconds: float = 1.0) -> float:
        """Wait until the server and each agent have been quiet for so long.

        Returns the moment when that began. Raises `TimeoutError`.
        """
        pids = [each.pid for each in (self.registry.server, *self.agents)]
        end = time.monotonic() + DEADLINE
        since, last = time.monotonic(), [processor(pid) for pid in pids]
        while time.monotonic() < end:
            time.sleep(seconds / 4)
            now, used = time.monotonic(), [processor(pid) for pid in pids]
            most = max(after - before for after, before in zip(used, last, strict=True))
            if most > QUIET * (now - since):
                since, last = now, used
            elif now - since >= seconds:
                return since
        raise TimeoutError(f"an agent or the server is busy after {DEADLINE:g} s")
