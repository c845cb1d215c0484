"""Secrets on the command line: what others see of it in the list of processes."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

SELF = Path("/proc/self")
# Of the fields after the command's name in /proc/<pid>/stat, where the arguments start (proc(5)).
ARG_START = 45


def hide_secrets() -> None:
    """Overwrite users and passwords of URIs in place; before that they are seen for a moment.

    Does nothing where the system has no ``/proc`` or keeps its memory map to itself.
    """
    try:
        shown = (SELF / "cmdline").read_bytes()
        fields = (SELF / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return
    hidden = re.sub(rb"(?<=://)[^/?@\0]+(?=@)", lambda match: b"***"[: len(match[0])], shown)
    start = int(fields[ARG_START])
    if start and hidden != shown:
        ctypes.memmove(start, hidden.ljust(len(shown), b"\0"), len(shown))
