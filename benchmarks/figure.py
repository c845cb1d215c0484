"""A measured figure, and how figures are shown."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table; `value`, `target` and `floor` are in `unit`.

    The target is an upper bound. `floor` is what the job cannot do without, measured in the same
    run; with `times` the target is so many times the floor.
    """

    row: str
    value: float
    unit: str
    target: float | None = None
    floor: float | None = None
    times: float | None = None
    note: str = ""

    @property
    def bound(self) -> float | None:
        """The target in `unit`."""
        if self.times is not None and self.floor is not None:
            return self.times * self.floor
        return self.target

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        return None if self.bound is None else self.value <= self.bound

    def as_json(self) -> dict[str, object]:
        """With all that the table shows."""
        return dataclasses.asdict(self) | {"bound": self.bound, "met": self.met}


def median(values: Iterable[float]) -> float:
    """The median; infinite where there are none, so that no target is met by measuring nothing."""
    found = [*values]
    return statistics.median(found) if found else float("inf")


def spread(values: Sequence[float], unit: str, scale: float = 1) -> str:
    """How far single values lie apart, for a note."""
    if len(values) < 2:
        return ""
    return f"n={len(values)}, {min(values) * scale:.3g} to {max(values) * scale:.3g} {unit}"


def table(figures: Iterable[Figure]) -> str:
    """The figures as Markdown."""
    lines = [
        "| figure | measured | target | met | floor | ratio | |",
        "| --- | --: | --: | --- | --: | --: | --- |",
    ]
    for each in figures:
        bound = "" if each.bound is None else f"{each.bound:.3g} {each.unit}"
        if each.times is not None:
            bound += f" ({each.times:g} times the floor)"
        met = {None: "", True: "yes", False: "**no**"}[each.met]
        floor = "" if each.floor is None else f"{each.floor:.3g} {each.unit}"
        ratio = f"{each.value / each.floor:.2f}" if each.floor else ""
        value = f"{each.value:.3g} {each.unit}"
        lines.append(
            f"| {each.row} | {value} | {bound} | {met} | {floor} | {ratio} | {each.note} |"
        )
    return "\n".join(lines)
