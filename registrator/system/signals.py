"""Signals as messages to the main thread.

A signal's handler runs between any two steps of the main thread, also while that holds a lock. So a
handler here only notes the signal. The main thread acts on it when it looks. Python's wake-up file
ends its wait: see `signal.set_wakeup_fd`.
"""

import contextlib
import select
import signal
import socket
from collections.abc import Iterable
from types import FrameType


class Inbox:
    """The signals that have arrived. The main thread makes it, and alone calls `wait`."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._noted: set[signal.Signals] = set()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)
        # A full buffer holds enough to wake the thread.
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._noted.add(signal.Signals(number))

    def wake(self) -> None:
        """End the present or the next wait. Any thread may call it."""
        with contextlib.suppress(BlockingIOError):
            self._writer.send(b"\0")

    def wait(self, seconds: float) -> set[signal.Signals]:
        """The signals since the last call. Waits for one, or for `wake`, up to `seconds`."""
        self._poll.poll(seconds * 1000)
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        # A signal that comes after this line stays in the new set, or wakes the next wait.
        noted = set()
        while self._noted:
            noted.add(self._noted.pop())
        return noted
