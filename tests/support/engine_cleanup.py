"""Removes what an engine of the tests left: ``python engine_cleanup.py FOLDER CGROUP``.

Stands alone, since the guard runs it when the tests themselves were killed. `FOLDER` holds the
engine's data and sockets, `CGROUP` is the name of its cgroup. Interfaces end with the engine's
network namespace.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
SHIM_SOCKETS = Path("/run/containerd/s")


def command(folder: Path, name: str) -> list[str]:
    """The words that run this as a program."""
    return [sys.executable, __file__, str(folder), name]


def clean_up(folder: Path, name: str) -> None:
    """Kill what runs, unmount, and take away cgroups and the folder."""
    end = time.monotonic() + 60
    while pids := processes(folder, name):
        if time.monotonic() > end:
            raise TimeoutError(f"processes of {name} outlive SIGKILL: {sorted(pids)}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    for mount in mounts(folder):
        subprocess.run(["umount", "-l", mount], check=True, timeout=60)
    for group in cgroups(name):
        group.rmdir()
    for path in _shim_sockets(folder):
        path.unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def processes(folder: Path, name: str) -> set[int]:
    """Containerd, the shims and the containers' processes, which may all outlive the engine."""
    return {*_supervisors(folder), *_contained(name)}


def mounts(folder: Path) -> list[str]:
    """The engine's mounts, the innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in reversed(lines) if line.split()[4].startswith(f"{folder}/")]


def cgroups(name: str) -> list[Path]:
    """The engine's cgroups in every hierarchy, the deepest first."""
    tops = [*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")]
    found = [path for top in tops for path in (top, *top.rglob("*")) if path.is_dir()]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def _supervisors(folder: Path) -> Iterator[int]:
    wanted = f"{folder}/exec/".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if wanted in path.read_bytes():
                yield int(path.parent.name)


def _contained(name: str) -> Iterator[int]:
    for group in cgroups(name):
        with contextlib.suppress(OSError):
            yield from map(int, (group / "cgroup.procs").read_text().split())


def _shim_sockets(folder: Path) -> Iterator[Path]:
    """A shim's socket, which a killed one leaves, is named by a hash of whose it is."""
    for container in folder.glob("data/containers/*"):
        whose = f"{folder}/exec/containerd/containerd.sock/moby/{container.name}"
        yield SHIM_SOCKETS / hashlib.sha256(whose.encode()).hexdigest()


if __name__ == "__main__":
    clean_up(Path(sys.argv[1]), sys.argv[2])
