"""Run the suites against other versions of servers, engines and Python: ``make compatibility``.

Each version is made once, in ``.cache/compatibility``. The results are printed as a table, and each
is written into ``docs/compatibility.md`` at once. The exit status is 1 if a suite failed or a
version cannot be had.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Iterable, Iterator

from compatibility import document, suites
from compatibility.recipe import Unavailable
from compatibility.versions import VERSIONS, Version, obtain


def main() -> int:
    """Parse the command line and run. Returns the exit status."""
    parser = argparse.ArgumentParser("compatibility", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="VERSION", help="as etcd-3.6.8, or all of etcd")
    parser.add_argument(
        "--suite", action="append", default=[], help="run this suite; without, all of them"
    )
    parser.add_argument("--make", action="store_true", help="make the versions, run nothing")
    options = parser.parse_args()
    try:
        chosen = choose(options.only)
    except LookupError as error:
        parser.error(str(error.args[0]))
    order = {each.name: [suite.name for suite in each.suites] for each in VERSIONS}
    rows: list[document.Row] = []
    all_good = True
    for version in chosen:
        for row, good in run(version, options.suite, make_only=options.make):
            rows.append(row)
            all_good &= good
            if not options.make:
                document.write([row], order)
    print(document.table(rows), end="")
    return 0 if all_good else 1


def choose(names: Iterable[str]) -> list[Version]:
    """The versions with these names or beginnings of names, all for none. Raises `LookupError`."""
    chosen: list[Version] = []
    for name in names:
        found = [each for each in VERSIONS if f"{each.name}-.".startswith((f"{name}-", f"{name}."))]
        if not found:
            raise LookupError(
                f"there is no {name}; there are {', '.join(v.name for v in VERSIONS)}"
            )
        chosen += found
    return chosen or [*VERSIONS]


def run(
    version: Version, only: list[str], *, make_only: bool = False
) -> Iterator[tuple[document.Row, bool]]:
    """Make a version and run its suites. Yields a row for each, and whether all was well."""
    today = datetime.date.today().isoformat()
    say(f"{version.name}: making it")
    try:
        environment, number = obtain(version)
    except Unavailable as reason:
        say(f"{version.name}: cannot be had: {reason}")
        # A bar would end the cell.
        shown = f"cannot be had: {reason}".replace("|", "/")
        yield document.Row(version.name, "", "", shown, "", today), False
        return
    if make_only:
        yield document.Row(version.name, number, "", "made", "", today), True
        return
    for suite in version.suites:
        if only and suite.name not in only:
            continue
        say(f"{version.name}: running {suite.name}")
        outcome, log = suites.run(suite, version.name, environment)
        say(f"{version.name}: {suite.name}: {outcome}" + ("" if outcome.good else f"; see {log}"))
        for failure in outcome.failures:
            say(f"  {failure}")
        took = f"{outcome.seconds / 60:.1f} min"
        row = document.Row(version.name, number, suite.name, str(outcome), took, today)
        yield row, outcome.good


def say(text: str) -> None:
    """Tell the progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
