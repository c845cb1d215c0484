"""Keeps entries alive while the reconciler is busy with a long listing or a large write."""

import threading
import time
from collections.abc import Callable

from registrator.backend import BackendError, SessionLost


class Keeper:
    """Calls `beat` in a thread of its own when nobody kept the entries alive in time.

    Usually the reconciler keeps them alive, through the connection that it works with. A backend
    then says so by `kept`, and this class does nothing. If the reconciler is late by a quarter of
    the time that is left, `beat` has to keep the entries alive once, through a connection that
    shares nothing with the reconciler's. It may raise what a backend's ``keepalive`` raises. If the
    session is lost, the reconciler is woken. After other failures `beat` is called again soon.

    `ttl` and `refresh` are in seconds. With a `ttl` of 0 there is nothing to keep alive.
    """

    def __init__(
        self, ttl: float, refresh: float, beat: Callable[[], None], wake: Callable[[], None]
    ) -> None:
        self._patience = refresh + (ttl - refresh) / 4
        self._retry = ttl / 10
        self._idle = not ttl
        self._beat = beat
        self._wake = wake
        self._due = 0.0
        self._stop = threading.Event()
        self._stop.set()

    def kept(self) -> None:
        """Note that the entries were just kept alive. The first call starts the thread."""
        self._due = time.monotonic() + self._patience
        if self._stop.is_set() and not self._idle:
            self._stop = threading.Event()
            threading.Thread(
                target=self._run, args=(self._stop,), name="keeper", daemon=True
            ).start()

    def stop(self) -> None:
        """End the thread, without waiting for a `beat` that it is in."""
        self._stop.set()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(max(0.0, self._due - time.monotonic())):
            if self._due > time.monotonic():
                continue  # It was kept meanwhile.
            pause = self._patience
            try:
                self._beat()
            except SessionLost:
                self._wake()
            except BackendError:
                pause = self._retry
            self._due = time.monotonic() + pause
