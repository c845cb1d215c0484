"""A stderr that takes nothing, little or only later. Each test runs a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.stderr import FullPipe
from support.wait import DEADLINE, until

BEGIN = """
import logging, os, sys
from registrator.system import log as logs
log = logging.getLogger("registrator.x")
"""


@contextlib.contextmanager
def python(body: str, stderr: int, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run code that logs, with `body` where the log stands. `words` go before the command.

    It ends as the agent does, so that no exit handler of Python waits for anything.
    """
    lines = [f"    {line}\n" for line in body.strip().splitlines()]
    code = f'{BEGIN}\nwith logs.on_stderr("info", "text"):\n{"".join(lines)}'
    process = subprocess.Popen(
        [*words, sys.executable, "-c", f"{code}print('ended', flush=True)\nos._exit(0)"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, bufsize=1,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line of its stdout."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def full() -> Iterator[FullPipe]:
    made = FullPipe()
    yield made
    made.close()


def test_a_full_stderr_stops_nobody_and_takes_the_lines_later(full: FullPipe) -> None:
    body = "for n in range(100): log.info('line %d.', n)\nprint('went on', flush=True)\ninput()"
    with python(body, full.writer) as process:
        assert line_of(process) == "went on"
        full.flow()
        until(lambda: "line 99." in full.text, lambda: full.text[-300:])
        assert len(re.findall(r"INFO  line \d+\.\n", full.text)) == 100
        assert "WARN" not in full.text
        process.communicate("\n", timeout=DEADLINE)


def test_lines_that_do_not_fit_are_counted(full: FullPipe) -> None:
    body = (
        "for n in range(30): log.info('%d %s.', n, 'x' * 100_000)\n"
        "print('went on', flush=True)\n"
        "input()\n"
        "log.info('later')\n"
        "input()"
    )
    with python(body, full.writer) as process:
        assert process.stdin is not None
        assert line_of(process) == "went on"
        full.flow()
        told = r"WARN  stderr did not take (\d+) lines of the log\n"
        # There is room for another line then.
        until(lambda: re.findall(told, full.text), lambda: full.text[-300:])
        process.stdin.write("\n")
        until(lambda: "INFO  later\n" in full.text, lambda: full.text[-300:])
        lost = 30 - len(re.findall(r"INFO  \d+ x{100000}\.\n", full.text))
        assert lost > 0
        # Usually in one line. If the first ones are told before the last ones are lost, in two.
        until(lambda: sum(map(int, re.findall(told, full.text))) == lost, lambda: full.text[-300:])
        process.communicate("\n", timeout=DEADLINE)


def test_a_full_stderr_does_not_hold_up_the_end(full: FullPipe) -> None:
    with python("log.info('never read')", full.writer) as process:
        assert process.communicate(timeout=DEADLINE)[0] == "ended\n"
        assert process.returncode == 0


def test_the_last_lines_come_out() -> None:
    with python("for n in range(2000): log.info('line %d.', n)", subprocess.PIPE) as process:
        assert process.communicate(timeout=DEADLINE)[1].count("INFO  line ") == 2000


def test_what_stderr_refuses_is_counted_once_it_takes_lines_again(tmp_path: Path) -> None:
    """Nobody reads the FIFO for a while."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    first = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(fifo, os.O_WRONLY)
    os.close(first)
    body = "log.info('a')\nlog.info('b')\nprint('went on', flush=True)\ninput()\nlog.info('c')"
    with python(body, writer) as process:
        os.close(writer)
        assert line_of(process) == "went on"
        until(lambda: copier_waits(process.pid), "the lines are refused")
        with os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)) as reader:
            process.communicate("\n", timeout=DEADLINE)
            lines = reader.read().splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "INFO  c",
        "WARN  stderr did not take 2 lines of the log",
    ]


def copier_waits(pid: int) -> bool:
    """Whether the thread that copies waits for lines: it has copied all that there were.

    The main thread does not count: it waits for its stdin, which is a pipe as well.
    """
    tasks = [task for task in Path(f"/proc/{pid}/task").iterdir() if task.name != str(pid)]
    return any("pipe_read" in (task / "wchan").read_text() for task in tasks)


def test_a_closed_stderr_is_nobody_elses_file(tmp_path: Path) -> None:
    """The file gets a number, and a library that writes to stderr must not hit it."""
    body = f"file = open({str(tmp_path / 'file')!r}, 'w')\nlog.info('a line')\nos.write(2, b'text')"
    with python(body, subprocess.DEVNULL, "sh", "-c", 'exec "$0" "$@" 2>&-') as process:
        assert process.communicate(timeout=DEADLINE)[0] == "ended\n"
    assert (tmp_path / "file").read_text() == ""


def is_full(pipe: int) -> bool:
    """Whether a write into the pipe would have to wait."""
    return not select.select([], [pipe], [], 0)[1]


def test_a_non_blocking_stderr_takes_all() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with python("for n in range(3000): log.info('line %d.', n)\ninput()", writer) as process:
        until(lambda: is_full(writer), "a full pipe")
        os.close(writer)
        assert process.stdin is not None
        process.stdin.write("\n")
        with os.fdopen(reader) as lines:
            assert lines.read().count("INFO  line ") == 3000


@pytest.mark.parametrize("stuck", [False, True])
def test_sigusr1_shows_the_stacks_of_all_threads(stuck: bool, full: FullPipe) -> None:
    """Also while the log's own lock is held, the main thread hangs, and stderr takes nothing."""
    body = (
        "import threading\n"
        "def hang_here(): logging.getLogger().handlers[0].acquire(); threading.Event().wait()\n"
        "threading.Thread(target=hang_here, daemon=True).start()\n"
        "print('ready', flush=True)\n"
        "input()"
    )
    with python(body, full.writer) as process:
        assert line_of(process) == "ready"
        if not stuck:
            full.flow()
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGUSR1)
        full.flow()
        until(lambda: "in hang_here" in full.text, lambda: full.text[-3000:])
        until(lambda: "Current thread" in full.text, lambda: full.text[-3000:])
        process.communicate("\n", timeout=DEADLINE)
        assert process.returncode == 0
