"""A measured figure, and the table of figures."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table. `value`, `target` and `floor` are in `unit`.

    The target is an upper bound. `floor` is the least that the job can cost, measured in the same
    run. With `times`, the target is this multiple of the floor.
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
        """Whether the target is met. None without a target."""
        return None if self.bound is None else self.value <= self.bound

    def as_json(self) -> dict[str, object]:
        """All fields, with the bound and whether it is met."""
        return dataclasses.asdict(self) | {"bound": self.bound, "met": self.met}


def median(values: Iterable[float]) -> float:
    """The median. Infinite without values, so that an empty measurement meets no target."""
    found = [*values]
    return statistics.median(found) if found else float("inf")


def spread(values: Sequence[float], unit: str, scale: float = 1) -> str:
    """The number of values and their range, for a note."""
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
