"""Stands between the agent and its stderr, so that nobody ever waits for stderr.

A full pipe, a slow terminal or a hung disk blocks whoever writes to it. So the agent writes to a
pipe of its own, which never blocks, and one thread copies that pipe to the real stderr. The pipe is
the buffer: it holds `SIZE` bytes. What does not fit is lost and counted, and the thread writes the
count as soon as stderr takes lines again.

A pipe needs no lock. So a thread that hangs cannot hold up the others, and `faulthandler` can write
into the pipe from a signal's handler.
"""

import contextlib
import fcntl
import io
import os
import select
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

# 1 MiB is the most that Linux gives to a pipe of an ordinary user.
SIZE = 1 << 20

# Seconds that the last lines get to come out. A stderr that takes nothing must not hold up the end.
LAST_LINES = 0.5

STDERR = 2


class Stderr(io.TextIOBase):
    """Takes the place of `sys.stderr` within a ``with`` block. Any thread may write.

    `lost_line` makes the line that tells how many lines are lost.
    """

    def __init__(self, lost_line: Callable[[int], str]) -> None:
        self._lost_line = lost_line
        self._lost = 0  # lines that did not fit, only grows
        self._cut = False
        open_standard_files()
        self._outlet, self._inlet = os.pipe()
        os.set_blocking(self._inlet, False)
        with contextlib.suppress(OSError):  # The user's pipes may have reached their limit.
            fcntl.fcntl(self._inlet, fcntl.F_SETPIPE_SZ, SIZE)
        self._thread = threading.Thread(target=self._copy, name="stderr", daemon=True)

    def __enter__(self) -> Self:
        self._before, sys.stderr = sys.stderr, self
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait until the last lines are out, but not for long. Later lines go nowhere."""
        sys.stderr = self._before
        # The pipe's end closes, and its number stays taken: a thread may still write to it.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._inlet, inheritable=False)
        os.close(nowhere)
        self._thread.join(LAST_LINES)

    def fileno(self) -> int:
        """The end of the pipe that takes lines. It is never closed."""
        return self._inlet

    def writable(self) -> bool:
        """Whether it takes text: always."""
        return True

    def write(self, text: str) -> int:
        """Write without waiting. What does not fit is lost."""
        # A line that was cut gets its end first.
        data = b"\n" * self._cut + text.encode(errors="backslashreplace")
        try:
            self._cut = os.write(self._inlet, data) < len(data)
        except BlockingIOError:
            self._lost += text.count("\n")
        else:
            self._lost += self._cut
        return len(text)

    def _copy(self) -> None:
        """Copy the pipe to stderr, until the pipe's other end closes."""
        told = refused = 0  # lines that are lost and told, and those that stderr refused
        while data := os.read(self._outlet, SIZE):
            lost = self._lost + refused
            if not _write(data):
                refused += data.count(b"\n")
            elif lost > told and (data.endswith(b"\n") or self._cut):
                end = b"" if data.endswith(b"\n") else b"\n"
                self._cut = False
                _write(end + self._lost_line(lost - told).encode())
                told = lost


def _write(data: bytes) -> bool:
    """Write all to stderr, however long that takes. Returns whether stderr took it."""
    while data:
        try:
            data = data[os.write(STDERR, data) :]
        except BlockingIOError:
            # Another process that has the same stderr may have made it so.
            poll = select.poll()
            poll.register(STDERR, select.POLLOUT)
            poll.poll()
        except OSError:
            return False
    return True


def open_standard_files() -> None:
    """Open what is closed of stdin, stdout and stderr, as /dev/null.

    The next file or connection would get the number of a closed stderr, and all that a library
    writes to its stderr would go there.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(number)
