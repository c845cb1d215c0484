"""Run random faults: ``python -m faults --help``. `make faults` and `make soak` call this."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from faults import timings
from faults.campaign import Campaign, Divergence, Usage
from faults.worlds import WORLDS

# In a soak, the share of the time after which memory has to be flat, and how flat, in MiB.
WARM_UP, FLAT = 0.2, 2.0


def main() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--registry", choices=sorted(WORLDS), action="append")
    parser.add_argument("--seeds", type=int, default=20, help="how many schedules (20)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--minutes", type=float, help="soak one agent for as long as this")
    parser.add_argument("--timings", action="store_true", help="also time each fault")
    given = parser.parse_args()
    if given.timings:
        timings.main()
    good = True
    for registry in given.registry or sorted(WORLDS):
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            with Campaign.of(registry, Path(folder), keep_agent=bool(given.minutes)) as campaign:
                good &= run(campaign, given.first, given.seeds, given.minutes)
    return 0 if good else 1


def run(campaign: Campaign, first: int, number: int, minutes: float | None) -> bool:
    """Run seeds from `first` on, each printed; returns whether all was well."""
    name, started = campaign.world.name, time.monotonic()
    took: list[float] = []
    usages: list[tuple[float, Usage]] = []
    diverged = 0
    while (time.monotonic() - started < minutes * 60) if minutes else len(took) < number:
        seed = first + len(took)
        try:
            took.append(campaign.run(seed))
        except Divergence as story:
            print(story, flush=True)
            took.append(float("inf"))
            diverged += 1
        usages.append((time.monotonic() - started, campaign.usage()))
        print(
            f"{name} seed {seed}: agreed after {took[-1]:.1f} s; {shown(usages[-1][1])}", flush=True
        )
    lasted = time.monotonic() - started
    print(
        f"{name}: {len(took)} schedules from seed {first} on in {lasted / 60:.1f} min, "
        f"{diverged} diverged, median {statistics.median(took):.1f} s to agree"
    )
    return diverged == 0 and (not minutes or flat(usages, lasted))


def shown(usage: Usage) -> str:
    """A usage as a text."""
    return f"{usage.memory:.1f} MiB, {usage.files} files, {usage.threads} threads"


def flat(usages: list[tuple[float, Usage]], lasted: float) -> bool:
    """Whether memory, files and threads stayed level after the warm-up; prints the figures."""
    warm = [usage for moment, usage in usages if moment > WARM_UP * lasted]
    third = max(1, len(warm) // 3)
    early, late = (
        Usage(*(statistics.median(values) for values in zip(*part, strict=True)))
        for part in (warm[:third], warm[-third:])
    )
    print(f"after the warm-up: {shown(early)}; at the end: {shown(late)} (medians of a third each)")
    level = late.files <= early.files and late.threads <= early.threads
    return level and late.memory - early.memory <= FLAT


if __name__ == "__main__":
    sys.exit(main())
