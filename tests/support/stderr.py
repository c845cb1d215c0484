"""A pipe that nobody reads, until the test wants it to flow. A program gets it as its stderr."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading

from support.process import Process


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
        """The text that came through, without what filled it at first."""
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
        """Close the test's end. What still reads ends with the program."""
        os.close(self.writer)
        if self._thread.is_alive():
            self._thread.join(60)
        os.close(self._reader)


class Valve:
    """A small pipe from a program's stderr to its log file, that can be shut for a while."""

    def __init__(self, program: Process) -> None:
        self._reader, self._writer = os.pipe()
        fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, 4096)
        program.stderr, self._log_file = self._writer, program.log_file
        self._flowing = threading.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def shut(self) -> None:
        """Let nothing through: the pipe is soon full."""
        self._flowing.clear()

    def open(self) -> None:
        """Let all through again."""
        self._flowing.set()

    def _pump(self) -> None:
        with self._log_file.open("ab", buffering=0) as log:
            while data := os.read(self._reader, 4096):
                self._flowing.wait()
                log.write(data)
        os.close(self._reader)

    def close(self) -> None:
        """Close it, once the program has ended."""
        self.open()
        os.close(self._writer)
        self._thread.join(60)
