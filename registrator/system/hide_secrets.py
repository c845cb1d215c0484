"""Hides the secrets of the command line from the list of processes."""

import ctypes
import re
from pathlib import Path

SELF = Path("/proc/self")
# This field after the command's name in /proc/<pid>/stat says where the arguments start (proc(5)).
ARG_START = 45


def hide_secrets() -> None:
    """Overwrite users and passwords of URIs in place. Until then they are visible for a moment.

    Does nothing if the system has no ``/proc`` or hides its memory map.
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
