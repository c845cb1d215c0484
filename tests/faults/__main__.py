"""Random faults on real clusters. `make faults` and `make soak` run this."""

from __future__ import annotations

import argparse
import logging
import math
import sys
import tempfile
import time
from pathlib import Path

from faults import timings
from faults.campaign import Campaign, Late
from faults.usage import HEADING, ROW, Usage, flat, row
from faults.worlds import WORLDS

SEED = "{:>6}  {:>12}"


def main() -> int:
    """Parse the command line and run. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--registry", choices=sorted(WORLDS), action="append")
    parser.add_argument("--seeds", type=int, default=20, help="how many schedules (20)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--minutes", type=float, help="soak one agent for as long as this")
    parser.add_argument("--timings", action="store_true", help="also time each fault")
    given = parser.parse_args()
    # The one that looks at ZooKeeper loses its connections too.
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)
    if given.timings:
        timings.main()
    good = True
    for registry in given.registry or sorted(WORLDS):
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            with Campaign.of(registry, Path(folder), keep_agent=bool(given.minutes)) as campaign:
                good &= run(campaign, given.first, given.seeds, given.minutes)
    return 0 if good else 1


def run(campaign: Campaign, first: int, number: int, minutes: float | None) -> bool:
    """Run seeds from `first` on, each printed. Returns whether all agreed in time."""
    name, started = campaign.world.name, time.monotonic()
    extent = f"{minutes:g} minutes" if minutes else f"{number} seeds"
    print(f"{name}: {extent}, from seed {first} on")
    print(ROW.format(SEED.format("seed", "agreed after"), *HEADING), flush=True)
    took: list[float] = []
    late = 0
    usages: list[tuple[float, Usage]] = []
    while (time.monotonic() - started < minutes * 60) if minutes else len(took) < number:
        seed = first + len(took)
        try:
            took.append(campaign.run(seed))
            outcome = f"{took[-1]:.1f} s"
        except Late as story:
            print(story)
            took.append(story.seconds)
            late += 1
            outcome = f"{took[-1]:.1f} s LATE"
        except AssertionError as story:
            print(story)
            took.append(math.inf)
            outcome = "DIVERGED"
        usages.append((time.monotonic() - started, campaign.usage()))
        print(row(SEED.format(seed, outcome), usages[-1][1]), flush=True)
    lasted = time.monotonic() - started
    diverged = [str(first + n) for n, seconds in enumerate(took) if seconds == math.inf]
    agreed = [seconds for seconds in took if seconds != math.inf]
    most = f"; agreed after {max(agreed):.1f} s at most" if agreed else ""
    print(
        f"{name}: {len(took)} schedules in {lasted / 60:.1f} min, "
        f"{'seeds ' + ', '.join(diverged) if diverged else 'none'} diverged, {late} late{most}"
    )
    return not (diverged or late) and (not minutes or flat(usages, lasted))


if __name__ == "__main__":
    sys.exit(main())
