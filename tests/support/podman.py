"""Podman's service on a host of its own, that shares nothing with any other Podman."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import tempfile
from pathlib import Path
from typing import Any

from support import engine_cleanup
from support.docker_api import APIError, DockerAPI
from support.process import guard
from support.require import require
from support.servers import Server, program

# Storage, locks, networks' leases and mounts are in these, and so is nothing of the machine's.
# Without systemd nothing but a test runs health checks.
# Whoever kills the service sees it come back, as with socket activation.
SCRIPT = """
set -e
export DISABLE_HC_SYSTEMD=true
for folder in /run /var/lib /dev/shm; do mount -t tmpfs tmpfs $folder; done
ip link set lo up
while :; do
    podman --cgroup-manager=cgroupfs --events-backend=file --storage-driver=vfs \
        --network-config-dir=/run/networks system service --time=0 "$1" || sleep 0.2
done
"""


class Podman(Server):
    """Podman as root in namespaces of its own, with its API at `host`.

    All that it makes but its cgroups ends with the namespaces: containers, mounts, bridges and
    packet filter rules, its store too. Where it publishes ports nobody else does.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("podman", folder)
        self._unshare = program("unshare", package="util-linux")
        for name, package in (("podman", "podman"), ("ip", "iproute2"), ("iptables", "iptables")):
            program(name, package=package)
        require("root", os.geteuid() == 0, "an engine needs it")
        # A socket's path has at most 107 characters.
        self.root = Path(tempfile.gettempdir(), f"rgt-{secrets.token_hex(4)}")
        self.socket = self.root / "podman.sock"
        self.host = f"unix://{self.socket}"
        self.api = DockerAPI(self.socket)
        self.cgroup = f"rgp{random.randrange(10**6)}"
        self._cleaning = engine_cleanup.command(self.root, self.cgroup)
        self._others = engine_cleanup.cgroups("libpod_parent")

    def command(self) -> list[str]:
        namespaces = ["--mount", "--net", "--pid", "--mount-proc", "--fork", "--kill-child"]
        return [self._unshare, *namespaces, "sh", "-c", SCRIPT, "sh", self.host]

    def launch(self) -> None:
        guard("+command", self._cleaning)
        self.root.mkdir(mode=0o700)
        super().launch()

    def ready(self) -> bool:
        try:
            return bool(self.api.request("GET", "/_ping", deadline=2) == b"OK")
        except APIError:
            return False

    def run(self, name: str, image: str = "web", **options: Any) -> str:
        """Make and start a container (see `DockerAPI.create`). Returns its id."""
        return self.api.run(name, image, CgroupParent=f"/{self.cgroup}", **options)

    def probe(self, name: str) -> None:
        """Run the health check of a container once."""
        self.api.request("GET", f"/v4.0.0/libpod/containers/{name}/healthcheck")

    def kill_service(self) -> None:
        """SIGKILL to the service alone. Its containers go on, and it comes back."""
        (shell,) = _children(self.pid)
        for pid in _children(shell):
            if Path(f"/proc/{pid}/comm").read_text() == "podman\n":
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Kill it and its containers, and take away all that is left but its log."""
        self.kill()
        engine_cleanup.clean_up(self.root, self.cgroup)
        # Podman's own, made at its first container. Another Podman of the machine may use it now.
        for group in engine_cleanup.cgroups("libpod_parent"):
            if group not in self._others:
                with contextlib.suppress(OSError):
                    group.rmdir()
        guard("-command", self._cleaning)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
