"""The resources of an agent over time, and whether they stay level."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from support.process import Process

# The share of the time after which memory has to be flat, and how flat, in MiB.
WARM_UP, FLAT = 0.2, 2.0

Value = TypeVar("Value")

ROW = "{:>20}  {:>9}  {:>5}  {:>7}"
HEADING = "memory", "files", "threads"


class Usage(NamedTuple):
    """The resources of a process: memory in MiB, file descriptors, threads."""

    memory: float
    files: int
    threads: int


def usage_of(process: Process) -> Usage:
    """The resources of a process now. All are 0 if it has ended."""
    if not process.running:
        return Usage(0.0, 0, 0)
    folder = Path(f"/proc/{process.pid}")
    status = dict(re.findall(r"(\w+):\s+(\d+)", (folder / "status").read_text()))
    files = len(list((folder / "fd").iterdir()))
    return Usage(int(status["VmRSS"]) / 1024, files, int(status["Threads"]))


def row(label: str, usage: Usage) -> str:
    """A line of a table."""
    return ROW.format(label, f"{usage.memory:.1f} MiB", usage.files, usage.threads)


def thirds(values: Sequence[tuple[float, Value]], lasted: float) -> tuple[list[Value], ...]:
    """The first and the last third of the values after the warm-up, which have moments before."""
    warm = [value for moment, value in values if moment > WARM_UP * lasted] or [values[-1][1]]
    third = max(1, len(warm) // 3)
    return warm[:third], warm[-third:]


def flat(usages: Sequence[tuple[float, Usage]], lasted: float, allowed: float = FLAT) -> bool:
    """Print whether memory, files and threads stayed level after the warm-up, and return it.

    Files and threads come and go with connections: what leaks raises their least number.
    """
    early, late = (
        Usage(statistics.median(memory), min(files), min(threads))
        for memory, files, threads in (zip(*part, strict=True) for part in thirds(usages, lasted))
    )
    print(row("warmed up", early))
    print(row("at the end", late))
    grown = late.memory - early.memory
    level = grown <= allowed and late.files <= early.files and late.threads <= early.threads
    print(f"{'level' if level else 'NOT LEVEL'}: {grown:+.1f} MiB, {allowed:g} allowed", flush=True)
    return level
