"""The simulated engine as a process, and its commands."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class SimEngine:
    """A running simulated engine. `host` is a value for ``DOCKER_HOST``."""

    def __init__(self, folder: Path, total: int, running: int, identity: str = "") -> None:
        self.socket = folder / "docker.sock"
        self.host = f"unix://{self.socket}"
        words = [str(self.socket), str(total), str(running), *([identity] if identity else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sim_engine", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[1],
            text=True,
        )
        self._read()

    def start(self, first: int, count: int, seconds: float = 0) -> dict[str, int]:
        """Start containers. Returns the times of the first and the last event, in ns."""
        return self._command(f"start {first} {count} {seconds}")

    def die(self, first: int, count: int, seconds: float = 0) -> dict[str, int]:
        """Let containers die. Returns the same as `start`."""
        return self._command(f"die {first} {count} {seconds}")

    def asked(self) -> dict[str, int]:
        """The number of requests by kind. Raises if the engine refused one."""
        report = self._command("report")
        if report["refused"]:
            raise AssertionError(f"no engine would understand {report['refused']}")
        return dict(report["asked"])

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=10)

    def _command(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the simulated engine has ended")
        return dict(json.loads(line))


@contextmanager
def simulated(total: int, running: int | None = None, identity: str = "") -> Iterator[SimEngine]:
    """An engine with `total` containers. `running` of them (or all) run."""
    with tempfile.TemporaryDirectory(prefix="sim-") as folder:
        engine = SimEngine(Path(folder), total, total if running is None else running, identity)
        try:
            yield engine
            engine.asked()
        finally:
            engine.close()
