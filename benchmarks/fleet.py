"""A fleet of real agents at one real server: what it costs the server.

Each agent has its own simulated engine with 100 containers, and all options have their defaults.
`paper` calculates the requests of a larger fleet, and these figures check it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from signal import SIGTERM

from support.agent import Agent
from support.wait import until

from benchmarks import paper
from benchmarks.agents import Host, agent
from benchmarks.figure import Figure
from benchmarks.meters import Meter, Usage
from benchmarks.registries import running
from benchmarks.registry import Registry
from benchmarks.simulated import simulated
from benchmarks.starting import registered

SIZE, OWN = 20, 100
# The largest part of a core that a server may use while nothing happens.
CORE = 1.0
# Seconds that show what a server uses without agents.
ALONE = 20.0
DEADLINE = 300.0
# How far the measured requests may be above the calculated ones.
TIMES = 1.1
# Seconds without work after which all agents are done.
QUIET = 3.0
CONNECTED = ": connected to "


class Fleet:
    """Running agents, one for each host."""

    def __init__(self, registry: Registry, agents: Sequence[Agent]) -> None:
        self.registry = registry
        self.agents = agents
        self._before: dict[Agent, int] = {}
        self.meter = Meter(registry, agents)

    def wait_registered(self) -> None:
        """Wait until each agent has registered all services, once more than at the last wipe.

        The agents' logs tell this, because a look at the server would count as a request.
        """
        self._wait(
            lambda each: registered(each) >= self._before.get(each, 0) + OWN, "all registered"
        )

    def wipe(self) -> None:
        """Let the server lose all data. The agents are frozen, so that none is back too early."""
        self._before = {each: registered(each) for each in self.agents}
        for each in self.agents:
            each.freeze()
        self.registry.reset()

    def come_back(self) -> None:
        """Let the agents find the wiped server, and wait."""
        for each in self.agents:
            each.thaw()
        self.wait_registered()

    def restart(self) -> None:
        """End all agents, start them all at once, and wait. The entries stand."""
        for each in self.agents:
            each.signal(SIGTERM)
        for each in self.agents:
            each.stop()
        starts = {each: each.log.count(CONNECTED) for each in self.agents}
        for each in self.agents:
            each.launch()
        self._wait(lambda each: each.log.count(CONNECTED) > starts[each], "all connected")

    def _wait(self, done: Callable[[Agent], bool], what: str) -> None:
        until(lambda: all(map(done, self.agents)), lambda: f"{what}; {self._tails()}", DEADLINE)
        self.meter.wait_quiet(QUIET)

    def check(self) -> None:
        """Raise unless every service stands."""
        stand = self.registry.count()
        assert stand == OWN * len(self.agents), f"{stand} stand; {self._tails()}"

    def _tails(self) -> str:
        return "\n".join(each.tail(3) for each in self.agents)


@contextmanager
def fleet(registry: Registry, size: int) -> Iterator[Fleet]:
    """Launched agents, each with its own engine."""
    hosts = [Host(number) for number in range(1, size + 1)]
    with ExitStack() as stack:
        engines = [stack.enter_context(simulated(OWN, identity=host.engine)) for host in hosts]
        agents = [
            stack.enter_context(agent(engine.host, *host.words, registry.uri))
            for host, engine in zip(hosts, engines, strict=True)
        ]
        yield Fleet(registry, agents)


def rows(scheme: str, size: int, seconds: float) -> Iterator[Figure]:
    """The steady state over so many seconds, a restart of all agents, and the loss of all data."""
    costs, name = paper.COSTS[scheme], f"{scheme}, {size} agents"
    with running(scheme) as registry:
        alone = Meter(registry).over(ALONE)
        with fleet(registry, size) as agents:
            agents.wait_registered()
            agents.check()
            yield from _steady(name, agents.meter.over(seconds), alone, costs, size)
            used = agents.meter.during(agents.restart)
            agents.check()
            yield from _once(f"{name}, all restarted", used.without(alone), costs.start, size)
            agents.wipe()
            used = agents.meter.during(agents.come_back)
            agents.check()
            yield from _once(f"{name}, after a wipe", used.without(alone), costs.loss, size)


def _steady(
    name: str, used: Usage, alone: Usage, costs: paper.Costs, size: int
) -> Iterator[Figure]:
    core, rest = (each.server / each.seconds * 100 for each in (used, alone))
    note = f"{rest:.2g} % without any agent"
    yield Figure(f"{name}, nothing happens: server's part of a core", core, "%", CORE, note=note)
    rate = used.without(alone).requests / used.seconds
    whole = paper.young(costs, paper.HOSTS)
    yield Figure(
        f"{name}, nothing happens: requests", rate, "/s", base=paper.young(costs, size),
        times=TIMES, note=f"{paper.HOSTS:,} hosts: {whole:,.0f} /s",
    )  # fmt: skip


def _once(name: str, used: Usage, requests: float, size: int) -> Iterator[Figure]:
    note = f"over {used.seconds:.0f} s"
    yield Figure(f"{name}: server's processor time", used.server, "s", note=note)
    yield Figure(
        f"{name}: requests", used.requests, "", base=requests * size, times=TIMES,
        note=f"{used.requests / size:.4g} an agent",
    )  # fmt: skip
