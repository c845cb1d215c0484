"""The table of results: aligned, on the terminal and in ``docs/compatibility.md``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from compatibility.recipe import ROOT

DOCUMENT = ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- results -->\n", "<!-- /results -->"
HEAD = ("version", "number", "suite", "result", "time", "date")


@dataclass(frozen=True)
class Row:
    """A line of the table, as it is shown. `version` is the name in the table of versions."""

    version: str
    number: str
    suite: str
    result: str
    time: str
    date: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells in the order of `HEAD`."""
        return (self.version, self.number, self.suite, self.result, self.time, self.date)


def table(rows: Iterable[Row]) -> str:
    """The rows as aligned Markdown."""
    lines = [HEAD, *(row.cells for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |\n"
        for cells in lines
    )


def read(text: str) -> list[Row]:
    """The rows between the marks of a document."""
    shown = text.partition(BEGIN)[2].partition(END)[0].splitlines()[2:]
    return [Row(*(cell.strip() for cell in line.strip("| ").split(" | "))) for line in shown]


def merge(old: Sequence[Row], new: Sequence[Row], order: Mapping[str, Sequence[str]]) -> list[Row]:
    """The last row of each suite, in `order`, which has the names of each version's suites.

    A row without a suite says why its version cannot be had. It takes the place of all results of
    the version, and the next result takes its place. What is not in `order` is left out.
    """
    last: dict[tuple[str, str], Row] = {}
    for row in (*old, *new):
        for version, suite in [*last]:
            if version == row.version and bool(suite) != bool(row.suite):
                del last[version, suite]
        last[row.version, row.suite] = row
    places = [(name, suite) for name, suites in order.items() for suite in ("", *suites)]
    return [last[place] for place in places if place in last]


def write(new: Sequence[Row], order: Mapping[str, Sequence[str]]) -> None:
    """Put new rows into the document."""
    text = DOCUMENT.read_text()
    shown = table(merge(read(text), new, order))
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    DOCUMENT.write_text(re.sub(pattern, lambda _: BEGIN + shown + END, text, flags=re.DOTALL))
