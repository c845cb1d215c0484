"""A pipe that nobody reads, until the test wants it to flow; a program gets it as its stderr."""

from __future__ import annotations

import contextlib
import os
import threading


class FullPipe:
    """`writer` is the end for a program. The pipe is full at first."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        self._read = b""
        self._thread = threading.Thread(target=self._pump, daemon=True)
        os.set_blocking(self.writer, False)
        filling = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filling += os.write(self.writer, b"." * 4095 + b"\n")
        os.set_blocking(self.writer, True)
        self._filling = filling

    @property
    def text(self) -> str:
        """What came through, without what filled it at first."""
        return self._read[self._filling :].decode()

    def flow(self) -> None:
        """Read from now on."""
        if not self._thread.is_alive():
            self._thread.start()

    def _pump(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._reader, 1 << 16):
                self._read += data

    def close(self) -> None:
        """Close the test's end; what still reads ends with the program."""
        os.close(self.writer)
        if self._thread.is_alive():
            self._thread.join(60)
        os.close(self._reader)
