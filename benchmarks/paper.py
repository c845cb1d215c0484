"""The requests of a fleet, calculated from those of one agent.

docs/performance.md has the formulas, and the table that `table` makes. `herd` checks when the
agents send requests, with thousands of simulated agents. `fleet` checks how many, with real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from registrator.system.retry import MAX_BACKOFF

HOSTS = 10_000
RESYNC = 60.0
# Seconds that a restart of all agents takes, one by one, and that an outage lasts.
ROLLING, OUTAGE = 600.0, 600.0


@dataclass(frozen=True)
class Costs:
    """The requests of one agent with 100 services and the default options.

    `listing` is those of a resync, and `young` those of one of the first resyncs after a start, if
    these ask for more. `alive` is those of a second between two resyncs. `start` is those of a
    start, if the entries stand. `loss` is those after the loss of all entries, until all stand.
    """

    listing: float
    alive: float
    start: float
    loss: float
    young: float = 0


COSTS = {
    "etcd": Costs(listing=2, young=18, alive=0, start=7, loss=55),
    "consulkv": Costs(listing=2, alive=0, start=3, loss=6),
    "zookeeper": Costs(listing=3, alive=0.5, start=320, loss=240),
}


def steady(costs: Costs, hosts: int, resync: float = RESYNC) -> float:
    """Requests per second while nothing happens."""
    return hosts * (costs.listing / resync + costs.alive)


def young(costs: Costs, hosts: int, resync: float = RESYNC) -> float:
    """Requests per second while nothing happens, if all agents have just started."""
    return hosts * ((costs.young or costs.listing) / resync + costs.alive)


def restart(costs: Costs, hosts: int, over: float = ROLLING) -> float:
    """Requests per second while all agents restart within `over` seconds."""
    return young(costs, hosts) + hosts * costs.start / over


def wait(outage: float) -> float:
    """The longest wait between attempts after an outage of so many seconds."""
    return min(MAX_BACKOFF, outage / 6)


def attempts(hosts: int, outage: float = OUTAGE) -> float:
    """Requests per second at the end of an outage. The average wait is three quarters of `wait`."""
    return hosts / (0.75 * wait(outage))


def returning(costs: Costs, hosts: int, outage: float = OUTAGE) -> float:
    """Requests per second while the fleet returns after an outage in which all entries were lost.

    Each wait is drawn between half of the longest wait and all of it. The agents fail at different
    times, so they return evenly. Agents that are back continue as usual.
    """
    return steady(costs, hosts) + attempts(hosts, outage) * costs.loss


def table(costs: Mapping[str, Costs] = COSTS, hosts: int = HOSTS) -> str:
    """The requests per second of a fleet at each registry, as Markdown."""
    rows = {
        "nothing happens": [steady(each, hosts) for each in costs.values()],
        "nothing happens, soon after a start": [young(each, hosts) for each in costs.values()],
        "all agents restart within 10 min": [restart(each, hosts) for each in costs.values()],
        "during an outage of 10 min": [attempts(hosts) for _ in costs],
        "after it, all entries are lost": [returning(each, hosts) for each in costs.values()],
    }
    heads = ["requests per second", *costs]
    lines = [heads, ["---", *["--:"] * len(costs)]]
    lines += [[name, *(f"{value:,.0f}" for value in values)] for name, values in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
