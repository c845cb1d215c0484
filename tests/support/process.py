"""Real programs as objects: start, stop, kill, freeze, thaw. None outlives this process.

The guard is a process of its own that reads from a pipe which process groups to end (their
leaders by SIGTERM, then all by SIGKILL) and which commands to run. The pipe closes when this
process ends, however it ends: SIGKILL included.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.wait import DEADLINE, until

GUARD = """
import json, os, signal, subprocess, sys, time
groups, commands = {}, {}
for line in sys.stdin:
    verb, what = json.loads(line)
    {"+group": groups.setdefault, "-group": groups.pop,
     "+command": commands.setdefault, "-command": commands.pop}[verb](str(what), what)
def send(number, to, group):
    try:
        to(group, number)
        return True
    except ProcessLookupError:
        return False
# An engine that is killed while it starts a container leaves interfaces that nobody knows of.
living = [group for group in groups.values() if send(signal.SIGTERM, os.kill, group)]
end = time.monotonic() + 8
while time.monotonic() < end and any(send(0, os.kill, group) for group in living):
    time.sleep(0.05)
for group in groups.values():
    send(signal.SIGKILL, os.killpg, group)
for command in commands.values():
    subprocess.run(command, timeout=60)
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


def guard(verb: str, what: int | Sequence[str]) -> None:
    """Tell the guard: ``+group`` or ``-group`` (its id), ``+command`` or ``-command`` (its words).

    Taking back what was never given does no harm.
    """
    pipe = _guard().stdin
    assert pipe is not None
    pipe.write(json.dumps([verb, what]) + "\n")
    pipe.flush()


class Process:
    """A program in a process group of its own, with its output in a log file.

    `stderr`, set before a launch, is a file for its stderr instead.
    """

    stderr: int | None = None

    def __init__(self, name: str, folder: Path, command: Sequence[str] = ()) -> None:
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / f"{name}.log"
        self._command = [*command]
        self._popen: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The command that `launch` runs. It is asked at each start."""
        return self._command

    def environment(self) -> Mapping[str, str]:
        """Its environment. Asked at each start."""
        return os.environ

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
        with self.log_file.open("ab") as log:
            self._popen = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT if self.stderr is None else self.stderr,
                cwd=self.folder,
                env=dict(self.environment()),
                start_new_session=True,
            )
        guard("+group", self.pid)

    def stop(self, deadline: float = DEADLINE) -> int:
        """SIGTERM, and SIGKILL after `deadline` seconds. Returns the exit code."""
        if self.running:
            self.signal(signal.SIGTERM)
            self.thaw()
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert self._popen is not None
                self._popen.wait(deadline)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL to the whole group. Returns the exit code."""
        if self._popen is None:
            return 0
        if self._popen.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        code = self._popen.wait(DEADLINE)
        guard("-group", self.pid)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone."""
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """SIGSTOP: alive to the kernel, which still accepts connections, and mute."""
        os.killpg(self.pid, signal.SIGSTOP)
        self.wait_frozen()

    def wait_frozen(self) -> None:
        """Return once each of its threads has stopped: a signal takes its time."""

        def stopped() -> bool:
            tasks = Path(f"/proc/{self.pid}/task").glob("*/stat")
            return all(task.read_text().rpartition(")")[2].split()[0] in "TtZ" for task in tasks)

        until(stopped, f"{self.name} frozen", ignore=(OSError,))

    def thaw(self) -> None:
        """SIGCONT."""
        os.killpg(self.pid, signal.SIGCONT)

    def exited(self) -> int:
        """Wait until the program has ended by itself. Returns its exit code."""
        until(lambda: not self.running, lambda: f"the end of {self.name}; {self.tail()}")
        return self.kill()

    @property
    def log(self) -> str:
        """All that it has written to its log so far, over all its starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait_log(self, pattern: str) -> re.Match[str]:
        """Wait until a regular expression is found in the log."""

        def found() -> re.Match[str] | None:
            ended = not self.running
            match = re.search(pattern, self.log)
            assert match or not ended, f"{self.name} has ended without {pattern!r}; {self.tail()}"
            return match

        return until(found, lambda: f"{pattern!r}; {self.tail()}")

    def tail(self, lines: int = 15) -> str:
        """The end of its log, for an error message."""
        return f"end of {self.log_file}:\n" + "\n".join(self.log.splitlines()[-lines:])
