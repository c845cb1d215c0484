"""Whether the agent does its job, for a health check: ``python -m registrator.health``.

Exits with 0 where every agent that this process may see is well, else with 1 and what is wrong.
The agent keeps its state in a file that lives in memory and has no path (memfd_create(2)); it is
found through /proc. So it works in a read-only container without rights, needs no port, is seen
by nobody but the same user, and is gone with the agent.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

NAME = "registrator-health"
SIZE = 4096

# Seconds between two notes of the agent, and the age from which on it counts as stuck.
PERIOD, MAX_AGE = 2.0, 10.0


class Health:
    """The agent's side: a note of what is wrong now, if anything."""

    def __init__(self) -> None:
        self._file = os.memfd_create(NAME)

    def note(self, problems: Iterable[str]) -> None:
        """Replace the note; each problem is a line, and shows no secret."""
        text = "\n".join([f"{time.monotonic():.1f}", *problems])
        os.pwrite(self._file, text.encode()[:SIZE].ljust(SIZE), 0)

    def close(self) -> None:
        """Take the note away."""
        os.close(self._file)


def notes(proc: Path = Path("/proc")) -> list[str]:
    """The note of every agent that this process may see."""
    found = []
    for process in proc.glob("[0-9]*"):
        # Another user's, or gone while this looks; so may a single file be.
        with contextlib.suppress(OSError):
            for file in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(file.readlink()).startswith(f"/memfd:{NAME} "):
                        found.append(file.read_text(errors="replace"))
    return found


def problems(note: str, now: float) -> list[str]:
    """What is wrong with the agent of a note; `now` is the monotonic clock in seconds."""
    written, *wrong = note.strip().split("\n")
    if not written:
        return ["the agent has only just started"]
    age = now - float(written)
    if age > MAX_AGE:
        return [f"the agent has been stuck for {age:.0f} s"]
    return wrong


def main() -> int:
    """Print what is wrong; returns the exit code."""
    found = notes()
    wrong = [line for note in found for line in problems(note, time.monotonic())]
    if not found:
        wrong = ["no agent runs here, or it belongs to another user"]
    sys.stdout.writelines(f"{line}\n" for line in wrong or ["well"])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
