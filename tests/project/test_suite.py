"""The rules for the tests themselves: what `make unit` runs, and that no test asserts a duration.

A test asks for a server, a program or root by `require`, and `make unit` skips it there. So a new
test is part of `make unit` by itself, and the only way to leave it out is to ask for a part.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_only_require_skips_tests() -> None:
    skips = re.compile(r"pytest\.(skip|importorskip|xfail)\(|mark\.skip|collect_ignore\b")
    files = {path for path in TESTS.rglob("*.py") if skips.search(path.read_text())}
    names = {path.name for path in files - {Path(__file__)}}
    # The first is `require`. Debian lacks a program that one of the examples shows.
    assert names == {"require.py", "test_examples.py"}


def test_no_test_asserts_a_duration() -> None:
    """A busy machine would miss it. `make bench` and `make faults` measure durations."""
    clock = r"(monotonic|perf_counter|process_time)\(\) - \w+ <"
    short = r"until\([^#\n]*, [1-5]?\d(\)|, [(A-Z])|join\([1-5]?\d\)"
    short += r"|(assert|not) \w+\.wait\([1-5]?\d\)|text=True, timeout=[1-5]?\d\b"
    found = [
        f"{path.name}: {line.strip()}"
        for path in TESTS.rglob("test_*.py")
        for line in path.read_text().splitlines()
        if re.search(f"{clock}|{short}", line) and path != Path(__file__)
    ]
    assert found == []


def test_what_asks_for_no_part_runs_and_the_rest_says_what_it_asks_for() -> None:
    command = [sys.executable, "-m", "pytest", "--unit", "-rpsE", "-v", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "contract/test_entries.py"],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout
    ran = set(re.findall(r"\[([a-z0-9-]+)\S* PASSED", done.stdout))
    assert ran == {"fake", "file"}
    asked = set(re.findall(r"only `make test` runs what needs (\S+)", done.stdout))
    assert asked == {"consul", "etcdctl", "java"}
