"""The health note that the agent writes, and the command that reads it.

The command is ``python -m registrator.health``, for a health check. It exits with 0 if every agent
that it may see is well. Otherwise it prints what is wrong and exits with 1. The agent keeps its
note in a file in memory without a path (memfd_create(2)), and the command finds the note through
/proc. So the check works in a read-only container without rights, and it needs no port. Only the
same user can see the note, and it ends with the agent.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

NAME = "registrator-health"
SIZE = 4096

# Seconds between two notes of the agent, and the age of a note whose agent is stuck.
PERIOD, MAX_AGE = 2.0, 10.0


class Note(NamedTuple):
    """The text of a note, and the id of the process that has it."""

    pid: int
    text: str


class Health:
    """The agent's side: the note that says what is wrong now.

    `text` is the note. Its first line has the moment, and the name of the agent's private `socket`.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create(NAME)
        self.socket = ""
        self.text = ""

    def note(self, problems: Iterable[str]) -> None:
        """Replace the note. Each problem is a line without a secret."""
        first = f"{time.monotonic():.1f} {self.socket}".rstrip()
        self.text = "\n".join([first, *problems])
        os.pwrite(self._file, self.text.encode(errors="replace")[:SIZE].ljust(SIZE), 0)

    def close(self) -> None:
        """Remove the note."""
        os.close(self._file)


def notes(proc: Path = Path("/proc")) -> list[Note]:
    """The note of every agent that this process may see."""
    found = []
    for process in proc.glob("[0-9]*"):
        # A process may belong to another user or end meanwhile, and so may each of its files.
        with contextlib.suppress(OSError):
            for file in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(file.readlink()).startswith(f"/memfd:{NAME} "):
                        with file.open(errors="replace") as opened:
                            found.append(Note(int(process.name), opened.read(SIZE)))
    return found


def problems(note: str, now: float) -> list[str]:
    """The problems of the agent that wrote this note. `now` is the monotonic clock in seconds."""
    _, *wrong = note.strip().split("\n")
    if not note.strip():
        return ["the agent has only just started"]
    if is_stuck(note, now):
        return [f"the agent has been stuck for {now - _first(note)[0]:.0f} s"]
    return wrong


def is_stuck(note: str, now: float) -> bool:
    """Whether the agent that wrote this note has stopped to write."""
    return bool(note.strip()) and now - _first(note)[0] > MAX_AGE


def socket_of(note: str) -> str:
    """The name of the private socket of the agent that wrote this note, or an empty text."""
    return _first(note)[1] if note.strip() else ""


def _first(note: str) -> tuple[float, str]:
    """The moment and the socket's name in the first line of a note.

    Any process can have a file by the name of a note. Nothing can be read of what it writes.
    """
    written, _, name = note.strip().partition("\n")[0].partition(" ")
    try:
        return float(written), name.strip()
    except ValueError:
        return 0.0, ""


def main() -> int:
    """Print what is wrong, and return the exit code."""
    found = notes()
    wrong = [line for note in found for line in problems(note.text, time.monotonic())]
    if not found:
        wrong = ["no agent runs here, or it belongs to another user"]
    sys.stdout.writelines(f"{line}\n" for line in wrong or ["well"])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
