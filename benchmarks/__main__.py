"""Measure the agent, and the least that the same job can cost: ``python -m benchmarks``.

It prints a table for each group of rows, or with ``--json`` a list of objects. It needs root and
the programs that the tests need. It starts its own real servers and stops them. Use an idle
machine: on a busy machine, the ratios hold better than the times.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks import (
    events,
    fleet,
    herd,
    looking,
    page,
    paper,
    peers,
    real,
    resources,
    scale,
    starting,
)
from benchmarks.figure import DOCUMENT, Figure, table


class Run(NamedTuple):
    """The options of one run."""

    quick: bool
    agents: int
    peer: str


class Group(NamedTuple):
    """Rows that make one table, and what they are compared with."""

    base: str
    rows: Callable[[Run], Iterator[Figure]]


def _each(
    function: Callable[..., Iterator[Figure]], *calls: tuple[object, ...], quick: int, full: int
) -> Group:
    """The figures of several calls. Each gets the number of repeats as its last argument."""

    def rows(run: Run) -> Iterator[Figure]:
        for call in calls:
            yield from function(*call, quick if run.quick else full)

    return Group("floor", rows)


def _beside(
    function: Callable[..., Iterator[Figure]], *calls: tuple[object, ...], quick: int, full: int
) -> Group:
    """Like `_each`, with the other registrator as one more argument."""

    def rows(run: Run) -> Iterator[Figure]:
        for call in calls:
            yield from function(*call, quick if run.quick else full, run.peer)

    return Group("floor", rows)


def _foreign(scheme: str) -> Group:
    def rows(run: Run) -> Iterator[Figure]:
        counts = (0, 10_000) if run.quick else (0, 10_000, 100_000)
        yield from scale.rows(scheme, counts, 2 if run.quick else 5)

    return Group("without foreign", rows)


def _fleet(scheme: str) -> Group:
    return Group("on paper", lambda run: fleet.rows(scheme, run.agents, 60 if run.quick else 300))


ROWS: dict[str, Group] = {
    "events": _each(events.single, ("consul",), ("zookeeper",), quick=5, full=30),
    "cold-1000": _each(
        starting.cold, ("consul", 1000), ("zookeeper", 1000), ("etcd", 1000), quick=1, full=5
    ),
    "cold-5000": _each(starting.cold, ("zookeeper", 5000), ("etcd", 5000), quick=1, full=3),
    "first": _each(starting.first, ("consul",), ("zookeeper",), quick=3, full=10),
    "memory": _each(
        resources.memory,
        *((scheme, n) for n in (0, 1000, 5000) for scheme in ("consul", "zookeeper")),
        quick=2,
        full=5,
    ),
    "idle": _each(resources.idle, ("consul", 1000), ("zookeeper", 1000), quick=5, full=20),
    "looking": _each(looking.rows, ("consul", 1000), quick=30, full=3600),
    "page": _each(page.rows, ("consul", 1000), quick=3, full=10),
    "writes": _each(resources.writes, (1000, 4.0), quick=3, full=10),
    "storm": _each(starting.storm, ("consul", 1000), ("zookeeper", 1000), quick=1, full=5),
    "burst": _each(real.burst, ("consul",), ("zookeeper",), quick=40, full=200),
    **{f"foreign-{each}": _foreign(each) for each in ("etcd", "skydns2", "consulkv", "zookeeper")},
    **{f"fleet-{each}": _fleet(each) for each in paper.COSTS},
    "herd": Group("floor", lambda run: herd.rows(run.quick)),
}

# The rows beside another registrator. None has etcd: the original knows only the API of version 2,
# whose keys no row reads.
PEER_ROWS: dict[str, Group] = {
    "events": _beside(events.single, ("consul",), ("zookeeper",), quick=6, full=30),
    "first": _beside(starting.first, ("consul",), ("zookeeper",), quick=3, full=10),
    "cold": _beside(
        peers.cold,
        *((scheme, n) for n in (100, 1000) for scheme in ("consul", "consulkv", "zookeeper")),
        ("zookeeper", 5000),
        quick=1,
        full=5,
    ),
    "memory": _beside(
        peers.memory,
        *((scheme, n) for n in (0, 1000, 5000) for scheme in ("consul", "zookeeper")),
        quick=1,
        full=3,
    ),
    "idle": _beside(
        peers.idle, *((each, 1000) for each in ("consul", "consulkv", "zookeeper")), quick=2, full=6
    ),
    "storm": _beside(peers.storm, ("consul", 1000), ("zookeeper", 1000), quick=1, full=5),
    "burst": _beside(real.burst, ("consul",), ("zookeeper",), quick=40, full=200),
}


def main() -> int:
    """Measure the chosen rows. Returns 1 if a target is not met."""
    parser = argparse.ArgumentParser("benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ROWS", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, smaller bursts")
    parser.add_argument("--json", action="store_true", help="a list of objects instead of tables")
    parser.add_argument("--agents", type=int, default=fleet.SIZE, help="the agents of a fleet")
    parser.add_argument("--peer", default="", metavar="COMMAND",
                        help="another registrator's command: measure it as well, in the rows "
                        f"{', '.join(PEER_ROWS)}")  # fmt: skip
    parser.add_argument("--document", action="store_true",
                        help="one table at the end, as in docs/performance.md")  # fmt: skip
    options = parser.parse_args()
    known = PEER_ROWS if options.peer else ROWS
    if unknown := {*(options.only or ())} - known.keys():
        parser.error(f"unknown rows {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    run = Run(options.quick, options.agents, options.peer)
    every: list[Figure] = []
    for name in options.only or known:
        figures = []
        for figure in known[name].rows(run):
            figures.append(figure)
            print(f"{figure.row}: {figure.value:.3g} {figure.unit}", file=sys.stderr, flush=True)
        every += figures
        if not options.json and not options.document:
            print(f"\n{name}\n\n{table(figures, known[name].base)}", flush=True)
    if options.document:
        print(table(every, only=DOCUMENT))
    if options.json:
        print(json.dumps([figure.as_json() for figure in every], indent=1))
    return 1 if any(figure.met is False for figure in every) else 0


if __name__ == "__main__":
    sys.exit(main())
