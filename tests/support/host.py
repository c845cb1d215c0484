"""A Docker host of its own: an engine in a network of its own, with ports that no one else has."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path

from support.engine import Dockerd
from support.process import guard
from support.servers import program


class Host(Dockerd):
    """An engine in a network namespace with loopback, an address, and a default route to nowhere.

    So compose files can publish the ports that their users know, several runs go side by side,
    and the engine may make its packet filter rules as on any host. `ip` is the host's address,
    `images` the names of those that were made on it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ip = program("ip", package="iproute2")
        self._nsenter = program("nsenter", package="util-linux")
        for name in ("iptables", "curl"):
            program(name, package=name)
        self.ip = "192.0.2.10"
        self.images: set[str] = set()

    def command(self) -> list[str]:
        packet_filter = ("--iptables=", "--ip-masq=", "--ip-forward=", "--bridge=")
        words = [word for word in super().command() if not word.startswith(packet_filter)]
        return [*self.inside, *words]

    @property
    def inside(self) -> list[str]:
        """The words before a command that make it run in this host's network."""
        return [self._nsenter, f"--net=/run/netns/{self.bridge}"]

    def _make_bridge(self) -> None:
        """The namespace; the engine makes its bridge in there by itself."""
        self.bridge = f"rgh{random.randrange(10**6)}"
        self._netns("add", self.bridge)
        guard("+command", [self._ip, "netns", "delete", self.bridge])
        for words in (
            "link set lo up",
            "link add eth0 type bridge",
            f"address add {self.ip}/24 dev eth0",
            "link set eth0 up",
            "route add default via 192.0.2.1",
        ):
            subprocess.run([*self.inside, self._ip, *words.split()], check=True)

    def _netns(self, *words: str) -> None:
        subprocess.run([self._ip, "netns", *words], check=True)

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "DOCKER_HOST": self.host, "DOCKER_SOCK": str(self.socket)}

    def run(
        self, *command: str, folder: Path | None = None, deadline: float = 120, check: bool = True
    ) -> str:
        """Run a command in this host's network, with its engine; returns what it prints."""
        done = subprocess.run(
            [*self.inside, *command],
            cwd=folder,
            env=dict(self.environment()),
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return done.stdout

    def remove(self) -> None:
        """As any engine's, and the namespace with it."""
        name = self.bridge
        super().remove()
        if name:
            self._netns("delete", name)
            guard("-command", [self._ip, "netns", "delete", name])
