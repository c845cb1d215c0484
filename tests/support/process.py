"""Real programs as objects: start, stop, kill, freeze, thaw; none outlives this process.

The guard is a process of its own that reads from a pipe which parts to end and which folders to
remove. The pipe closes when this process ends, however it ends: SIGKILL included.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.wait import until

GUARD = """
import os, shutil, signal, sys
groups, folders = set(), set()
for line in sys.stdin:
    verb, _, what = line.rstrip("\\n").partition(" ")
    {"+group": groups.add, "-group": groups.discard,
     "+folder": folders.add, "-folder": folders.discard}[verb](what)
for group in groups:
    try:
        os.killpg(int(group), signal.SIGKILL)
    except ProcessLookupError:
        pass
for folder in folders:
    shutil.rmtree(folder, ignore_errors=True)
"""


@functools.cache
def _guard() -> subprocess.Popen[str]:
    guard = subprocess.Popen(
        [sys.executable, "-c", GUARD],
        stdin=subprocess.PIPE,
        start_new_session=True,
        text=True,
        bufsize=1,
    )
    atexit.register(_end_guard, guard)
    return guard


def _end_guard(guard: subprocess.Popen[str]) -> None:
    guard.communicate(timeout=30)


def guard(verb: str, what: object) -> None:
    """Tell the guard: ``+group``, ``-group`` (a process group), ``+folder``, ``-folder``."""
    pipe = _guard().stdin
    assert pipe is not None
    pipe.write(f"{verb} {what}\n")
    pipe.flush()


class Process:
    """A program in a process group of its own, with its output in a log file."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{name}.log"
        self._popen: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What `start` runs; called at each start."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Variables on top of this process's own."""
        return {}

    @property
    def pid(self) -> int:
        assert self._popen is not None, f"{self.name} was not started"
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def launch(self) -> None:
        """Run the command, without waiting until it is ready."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                start_new_session=True,
            )
        guard("+group", self.pid)

    def stop(self, deadline: float = 15) -> int:
        """SIGTERM, and SIGKILL after `deadline` seconds; returns the exit code."""
        if self.running:
            self.signal(signal.SIGTERM)
            self.thaw()
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert self._popen is not None
                self._popen.wait(deadline)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL to the whole group; returns the exit code."""
        if self._popen is None:
            return 0
        if self._popen.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        code = self._popen.wait(10)
        guard("-group", self.pid)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone."""
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """SIGSTOP: alive to the kernel, which still accepts connections, and mute."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.killpg(self.pid, signal.SIGCONT)

    def exited(self, deadline: float) -> int:
        """Wait until the program has ended by itself; returns its exit code."""
        until(lambda: not self.running, deadline, f"the end of {self.name}; {self.tail()}")
        return self.kill()

    def output(self) -> str:
        """All that it has written to its log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 15) -> str:
        """The end of its log, for an error message."""
        return f"end of {self.log}:\n" + "\n".join(self.output().splitlines()[-lines:])
