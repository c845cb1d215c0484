"""``make faults`` and ``make soak``: run seeds, print each, and stop at the first divergence."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from faults.campaign import Campaign, Divergence
from faults.worlds import WORLDS


def main() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--registry", choices=sorted(WORLDS), action="append")
    parser.add_argument("--seeds", type=int, default=20, help="how many (20)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--minutes", type=float, help="as long as this, in place of --seeds")
    given = parser.parse_args()
    failed = False
    for registry in given.registry or sorted(WORLDS):
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            with Campaign.of(registry, Path(folder)) as campaign:
                failed |= not run(campaign, given.first, given.seeds, given.minutes)
    return 1 if failed else 0


def run(campaign: Campaign, first: int, number: int, minutes: float | None) -> bool:
    """Run seeds from `first` on; returns whether all agreed."""
    name, started = campaign.world.name, time.monotonic()
    took: list[float] = []
    good = True
    while (time.monotonic() - started < minutes * 60) if minutes else len(took) < number:
        seed = first + len(took)
        try:
            took.append(campaign.run(seed))
        except Divergence as story:
            print(story, flush=True)
            took.append(float("inf"))
            good = False
        else:
            print(f"{name} seed {seed}: agreed after {took[-1]:.1f} s", flush=True)
    lasted = time.monotonic() - started
    bad = sum(t == float("inf") for t in took)
    print(
        f"{name}: {len(took)} schedules from seed {first} on in {lasted / 60:.0f} min, "
        f"{bad} diverged, median {statistics.median(took):.1f} s to agree"
    )
    return good


if __name__ == "__main__":
    sys.exit(main())
