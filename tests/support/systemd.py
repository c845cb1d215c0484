"""A booted systemd, on this machine's files, none of which it changes."""

from __future__ import annotations

import os
import random
import re
import secrets
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from support import engine_cleanup
from support.process import guard
from support.require import require
from support.servers import Server, program

SYSTEMD = Path("/lib/systemd/systemd")

# systemd asks this of a container's manager: the root is a mount, and its cgroup is the topmost.
# Also, /sys and /proc/sys are read-only, so that nothing sets up devices or the kernel. No unit of
# the machine's administrator starts, and no disk of the machine's is mounted.
SCRIPT = """
set -e
echo $$ >"$CGROUP/cgroup.procs"
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh -ec '
    mount -t tmpfs tmpfs "$FOLDER"
    cd "$FOLDER"
    mkdir upper work root
    mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
    cd root
    mount -t proc proc proc
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    for folder in run tmp dev var/log etc/systemd/system; do mount -t tmpfs tmpfs $folder; done
    for device in null zero full random urandom tty; do
        touch dev/$device
        mount --bind /dev/$device dev/$device
    done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    touch run/docker.sock
    mount --bind "$ENGINE" run/docker.sock
    : >etc/fstab
    tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
    mkdir .old
    pivot_root . .old
    umount -l /.old
    exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv \
        --bounding-set=-sys_boot,-sys_module,-sys_rawio,-sys_time \
        "$INIT" --unit=multi-user.target --show-status=no
'
"""


class Systemd(Server):
    """A booted systemd with the engine's `socket` at /var/run/docker.sock.

    All that is written there is in memory, and gone with it. Its network is the machine's.
    """

    def __init__(self, folder: Path, socket: Path) -> None:
        super().__init__("systemd", folder)
        for name in ("unshare", "nsenter", "setpriv"):
            program(name, package="util-linux")
        require("systemd", SYSTEMD.exists(), "Debian's systemd")
        require("root", os.geteuid() == 0, "a booted systemd needs it")
        mounts = Path("/proc/self/mountinfo").read_text()
        found = re.search(r"^\d+ \d+ \S+ / (\S+) (?=rw).* - cgroup2 ", mounts, re.MULTILINE)
        require("cgroup2", found, "a mounted one that can be written to")
        assert found is not None
        self._group = Path(found[1], f"rgs{random.randrange(10**6)}")
        self.root = Path(tempfile.gettempdir(), f"rgt-{secrets.token_hex(4)}")
        self._engine = socket
        self._cleaning = engine_cleanup.command(self.root, self._group.name)

    def command(self) -> list[str]:
        return ["sh", "-c", SCRIPT]

    def environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "CGROUP": str(self._group),
            "FOLDER": str(self.root),
            "ENGINE": str(self._engine),
            "INIT": str(SYSTEMD),
        }

    def launch(self) -> None:
        guard("+command", self._cleaning)
        self._group.mkdir()
        self.root.mkdir(mode=0o700)
        super().launch()

    def ready(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False) == "running"

    def remove(self) -> None:
        """Kill it with all that runs in it. Only its log is left."""
        self.kill()
        engine_cleanup.clean_up(self.root, self._group.name)
        guard("-command", self._cleaning)

    def path(self, path: str) -> Path:
        """A path of its files, as this process sees it."""
        return Path(f"/proc/{self._init}/root{path}")

    def run(self, *words: str, check: bool = True, deadline: float = 30) -> str:
        """Run a command in it, as root. Returns what it prints."""
        inside = ["nsenter", f"--target={self._init}", "-m", "-p", "-u", "-i", "-C", "-r", "-w"]
        done = subprocess.run(
            [*inside, *words], capture_output=True, text=True, timeout=deadline, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{words} ended with {done.returncode}: {done.stderr[-3000:]}")
        return done.stdout.strip()

    @property
    def _init(self) -> int:
        """The process that is number 1 in there."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        if not children:
            raise OSError("systemd has not begun")
        return int(children[0])
