"""Measure the agent, and the least that the same job can cost: ``python -m benchmarks``.

It prints one table, or with ``--json`` a list of objects. It needs root and the programs that the
tests need. It starts its own real servers and stops them. Use an idle machine: on a busy machine,
the ratios to the floors hold, but the times do not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator

from benchmarks import herd, real, resources, starting
from benchmarks.figure import Figure, table

Rows = Callable[[bool], Iterator[Figure]]


def _each(
    function: Callable[..., Iterator[Figure]], *calls: tuple[object, ...], quick: int, full: int
) -> Rows:
    """The figures of several calls. Each gets the number of repeats as its last argument."""

    def rows(is_quick: bool) -> Iterator[Figure]:
        for call in calls:
            yield from function(*call, quick if is_quick else full)

    return rows


ROWS: dict[str, Rows] = {
    "events": _each(real.single, ("consul",), ("zookeeper",), quick=5, full=30),
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
    "writes": _each(resources.writes, (1000, 4.0), quick=3, full=10),
    "storm": _each(starting.storm, ("consul", 1000), ("zookeeper", 1000), quick=1, full=5),
    "burst": _each(real.burst, ("consul",), ("zookeeper",), quick=40, full=200),
    "herd": herd.rows,
}


def main() -> int:
    """Measure the chosen rows. Returns 1 if a target is not met."""
    parser = argparse.ArgumentParser("benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=[*ROWS], metavar="ROWS",
                        help=f"some of {', '.join(ROWS)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="fewer repeats, smaller bursts")
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    options = parser.parse_args()
    figures = []
    for name in options.only:
        for figure in ROWS[name](options.quick):
            figures.append(figure)
            print(f"{figure.row}: {figure.value:.3g} {figure.unit}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps([figure.as_json() for figure in figures], indent=1))
    else:
        print(table(figures))
    return 1 if any(figure.met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
