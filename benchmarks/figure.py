"""A measured figure, and the table of figures."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One line of a table. `value`, `target`, `base` and `extremes` are in `unit`.

    `value` is the median of `n` samples, which lie between the `extremes`. The target is an upper
    bound. `base` is what the value is compared with, measured in the same run. It is the floor
    unless the table says otherwise. With `times`, the target is this multiple of the base. `peer`
    is the value of another registrator, measured in the same run.
    """

    row: str
    value: float
    unit: str
    target: float | None = None
    base: float | None = None
    times: float | None = None
    peer: float | None = None
    note: str = ""
    n: int = 1
    extremes: tuple[float, float] | None = None

    @classmethod
    def of(cls, row: str, samples: Iterable[float], unit: str, **more: Any) -> Figure:
        """The figure of several samples."""
        found = [*samples]
        extremes = (min(found), max(found)) if len(found) > 1 else None
        return cls(row, median(found), unit, n=len(found), extremes=extremes, **more)

    @property
    def bound(self) -> float | None:
        """The target in `unit`."""
        if self.times is not None and self.base is not None:
            return self.times * self.base
        return self.target

    @property
    def met(self) -> bool | None:
        """Whether the target is met. None without a target."""
        return None if self.bound is None else self.value <= self.bound

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of the base."""
        return self.value / self.base if self.base else None

    @property
    def to_peer(self) -> float | None:
        """The value as a multiple of the peer's. None if the peer did not get there."""
        return self.value / self.peer if self.peer and math.isfinite(self.peer) else None

    def as_json(self) -> dict[str, object]:
        """All fields, with the bound, the ratio and whether the target is met."""
        more = {"bound": self.bound, "ratio": self.ratio, "met": self.met}
        more |= {"to_peer": self.to_peer} if self.peer is not None else {}
        return dataclasses.asdict(self) | more

    def cells(self) -> list[str]:
        """The line as texts."""
        low, high = self.extremes or (None, None)
        bound = _shown(self.bound, self.unit)
        if self.times is not None:
            bound += f" ({self.times:g} times)"
        return [
            self.row,
            str(self.n),
            _shown(self.value, self.unit),
            f"{_shown(low)} to {_shown(high)}" if self.extremes else "",
            _shown(self.base, self.unit),
            _ratio(self.ratio),
            _shown(self.peer, self.unit),
            _ratio(self.to_peer),
            bound,
            {None: "", True: "yes", False: "**no**"}[self.met],
            self.note,
        ]


def median(values: Iterable[float]) -> float:
    """The median. Infinite without values, so that an empty measurement meets no target."""
    found = [*values]
    return statistics.median(found) if found else float("inf")


# The columns of the document, besides the one with what the figures are compared with.
DOCUMENT = {"figure", "median", "ratio", "other", "to other", "target"}


def table(figures: Iterable[Figure], base: str = "floor", only: Iterable[str] = ()) -> str:
    """The figures as Markdown in columns. `base` says what they are compared with.

    With `only`, just these columns and `base` are shown.
    """
    heads = ["figure", "n", "median", "range", base, "ratio", "other", "to other"]
    heads += ["target", "met", "note"]
    rows = [heads, *(figure.cells() for figure in figures)]
    shown = {*only, base} if only else {*heads}
    places = [place for place, head in enumerate(heads) if head in shown]
    used = [place for place in places if any(row[place] for row in rows[1:])]
    widths = {place: max(3, *(len(row[place]) for row in rows)) for place in used}
    right = {heads.index(name) for name in ("n", "median", base, "ratio", "other", "to other")}

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def padded(row: Sequence[str]) -> list[str]:
        sides = (str.rjust if place in right else str.ljust for place in used)
        return [side(row[place], widths[place]) for side, place in zip(sides, used, strict=True)]

    rules = ["-" * (widths[p] - 1) + ":" if p in right else "-" * widths[p] for p in used]
    return "\n".join([line(padded(heads)), line(rules), *(line(padded(r)) for r in rows[1:])])


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _shown(value: float | None, unit: str = "") -> str:
    if value is None:
        return ""
    if math.isinf(value):
        return "never"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()
