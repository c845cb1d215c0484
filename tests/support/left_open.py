"""Threads and sockets that a test leaves open in its own process."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

from support.wait import DEADLINE, until

# A backend has these threads until it is closed.
BACKENDS = ("keeper", "consul_")


class LeftOpen:
    """Threads of backends and sockets that were not there when this was made."""

    def __init__(self) -> None:
        self._threads = {*threading.enumerate()}
        self._sockets = _sockets()

    def threads(self) -> list[str]:
        """The names of new threads."""
        new = {*threading.enumerate()} - self._threads
        return [each.name for each in new if each.name.startswith(BACKENDS)]

    def check(self, deadline: float = DEADLINE) -> None:
        """Wait until the new threads have ended. Have unclosed sockets warn in this test.

        Some tools keep a connection for the next test. So a new socket alone is no failure.
        """
        until(lambda: not self.threads(), lambda: f"the end of {self.threads()}", deadline)
        if _sockets() - self._sockets:
            gc.collect()


def _sockets() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(link.readlink()))
        except FileNotFoundError:
            continue  # It was the listing's own.
    return {name for name in found if name.startswith("socket:")}
