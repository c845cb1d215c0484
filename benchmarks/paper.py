"""The requests of a fleet, calculated from those of one agent.

docs/performance.md gives the formulas, and the figures for 10,000 hosts. `herd` checks when the
agents send requests, with thousands of simulated agents. `fleet` checks how many, with real ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from registrator.system.retry import MAX_BACKOFF

HOSTS = 10_000
RESYNC = 60.0


@dataclass(frozen=True)
class Costs:
    """The requests of one agent with 100 services.

    `listing` is those of a resync, and `alive` those of a second between two resyncs. `start` is
    those of a start, if the entries stand. `loss` is those after the loss of all entries, from the
    keep-alive that shows the loss until all stand again.
    """

    listing: float
    alive: float
    start: float
    loss: float


def steady(costs: Costs, hosts: int, resync: float = RESYNC) -> float:
    """Requests per second while nothing happens."""
    return hosts * (costs.listing / resync + costs.alive)


def restart(costs: Costs, hosts: int, over: float) -> float:
    """Requests per second while all agents restart within `over` seconds."""
    return steady(costs, hosts) + hosts * costs.start / over


def wait(outage: float) -> float:
    """The longest wait between attempts after an outage of so many seconds."""
    return min(MAX_BACKOFF, outage / 6)


def attempts(hosts: int, outage: float) -> float:
    """Requests per second at the end of an outage. The average wait is three quarters of `wait`."""
    return hosts / (0.75 * wait(outage))


def returning(costs: Costs, hosts: int, outage: float) -> float:
    """Requests per second while the fleet returns after an outage in which all entries were lost.

    Each wait is drawn between half of the longest wait and all of it. The agents fail at different
    times, so they return evenly. Agents that are back continue as usual.
    """
    return steady(costs, hosts) + attempts(hosts, outage) * costs.loss
