"""Which lines are written; run as a process of its own, since logging is one for all."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import logging
from registrator.system import log
with log.on_stderr({level!r}, "text"):
    for name in ("registrator.x", "urllib3.connectionpool"):
        for level in ("debug", "info", "warning"):
            getattr(logging.getLogger(name), level)("%s %s", name, level)
"""


@pytest.mark.parametrize(
    ("level", "ours", "theirs"),
    [("debug", 3, 2), ("info", 2, 0), ("warning", 1, 0)],
)
def test_libraries_never_drown_our_own_lines(level: str, ours: int, theirs: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(level=level)], capture_output=True, text=True, timeout=60
    )
    lines = done.stderr.splitlines()
    assert sum("registrator.x" in line for line in lines) == ours
    assert sum("urllib3" in line for line in lines) == theirs
