"""Suites of tests: which arguments of pytest they are, and what a run of one gave."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compatibility.recipe import ROOT

LOGS = ROOT / ".cache" / "compatibility-logs"
# Seconds. A suite takes some minutes on an idle machine.
TIMEOUT = 7200.0


@dataclass(frozen=True)
class Suite:
    """A part of the tests. `arguments` are pytest's, `variables` those that the tests read."""

    name: str
    arguments: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The result of a suite: counts, seconds, and the names of the tests that failed."""

    passed: int
    failed: int
    skipped: int
    seconds: float
    failures: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether tests ran and none failed."""
        return self.passed > 0 and self.failed == 0

    def __str__(self) -> str:
        counts = {"failed": self.failed, "passed": self.passed, "skipped": self.skipped}
        return ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "did not run"


def run(suite: Suite, name: str, environment: Mapping[str, str]) -> tuple[Outcome, Path]:
    """Run a suite with the programs of `environment`. Returns its outcome and its log.

    `name` is the version's. A suite that pytest cannot run, or that takes too long, has an outcome
    without any test.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log, results = (LOGS / f"{name}-{suite.name}.{ending}" for ending in ("log", "xml"))
    results.unlink(missing_ok=True)
    # A version of Python brings an environment of its own.
    python = shutil.which("python", path=str(Path(environment["PATH"].partition(":")[0])))
    command = [python or sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    began = time.monotonic()
    with log.open("wb") as output:
        with subprocess.Popen(
            [*command, f"--junitxml={results}", *suite.arguments],
            cwd=ROOT,
            env={**environment, **suite.variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as pytest:
            try:
                pytest.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                # SIGTERM would leave the servers to pytest's guard, which ends them likewise.
                pytest.kill()
    seconds = time.monotonic() - began
    text = results.read_text() if results.exists() else "<testsuites/>"
    return read_results(text, seconds), log


def read_results(text: str, seconds: float) -> Outcome:
    """The outcome in pytest's JUnit file. A test with an error counts as failed."""
    passed, skipped = 0, 0
    failures: list[str] = []
    for case in ElementTree.fromstring(text).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failures.append(f"{case.get('classname')}::{case.get('name')}")
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return Outcome(passed, len(failures), skipped, seconds, tuple(failures))
