"""The schedule of faults. It follows from the seed, so that a failing one can be run again."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SECONDS = 5.0
MAX_FAULTS = 7


@dataclass(frozen=True)
class Fault:
    """A fault of a target, from `start` for `seconds`. Some happen at once and last no time."""

    target: str
    kind: str
    start: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.start:4.1f} s {self.kind} {self.target} for {self.seconds:.1f} s"


def schedule(seed: int, targets: Mapping[str, Sequence[str]]) -> list[Fault]:
    """The faults of a seed in the order of their starts. `targets` maps each to its kinds.

    No two of one target overlap, any others may.
    """
    draw = random.Random(f"faults {seed}")
    busy: dict[str, list[tuple[float, float]]] = {}
    found = []
    for _ in range(draw.randint(2, MAX_FAULTS)):
        target = draw.choice(sorted(targets))
        start = draw.uniform(0, SECONDS - 0.5)
        seconds = draw.uniform(0.1, SECONDS - start)
        if any(start < end and begin < start + seconds for begin, end in busy.get(target, ())):
            continue
        busy.setdefault(target, []).append((start, start + seconds))
        found.append(Fault(target, draw.choice(sorted(targets[target])), start, seconds))
    return sorted(found, key=lambda fault: fault.start)
