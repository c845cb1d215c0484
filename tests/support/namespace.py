"""A network namespace with a cable to the machine's own, that can be unplugged."""

from __future__ import annotations

import os
import random
import subprocess

from support.process import guard
from support.require import require
from support.servers import program


class Namespace:
    """A host of its own as far as the network goes; `command` runs programs there.

    `address` is the machine's end of the cable. Unplugged, packets are dropped both ways and
    nobody is told: no FIN, no RST.
    """

    def __init__(self) -> None:
        self._ip = program("ip", package="iproute2")
        require("root", os.geteuid() == 0, "a network namespace needs it")
        number = random.choice([n for n in range(256) if not self._taken(n)])
        self.name = f"rgt-ns{number}"
        self._cable = f"rgtv{number}"
        self.address = f"172.31.{number}.1"
        inside = ["ip", "-n", self.name]
        self._run("ip", "netns", "add", self.name)
        guard("+command", ["ip", "netns", "delete", self.name])
        self._run(
            "ip", "link", "add", self._cable, "type", "veth", "peer", "eth0", "netns", self.name
        )
        self._run("ip", "address", "add", f"{self.address}/24", "dev", self._cable)
        self._run(*inside, "address", "add", f"172.31.{number}.2/24", "dev", "eth0")
        self._run(*inside, "link", "set", "lo", "up")
        self._run(*inside, "link", "set", "eth0", "up")
        self.plug()

    @property
    def command(self) -> list[str]:
        """What to put before a command to run it in the namespace."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def unplug(self) -> None:
        """Drop everything from now on."""
        self._run("ip", "link", "set", self._cable, "down")

    def plug(self) -> None:
        """Let packets through again."""
        self._run("ip", "link", "set", self._cable, "up")

    def another(self, number: int) -> str:
        """One more address of the machine's end, by its last number from 3 on."""
        address = f"{self.address.rpartition('.')[0]}.{number}"
        self._run("ip", "address", "add", f"{address}/24", "dev", self._cable)
        return address

    def drop(self, address: str) -> None:
        """Drop all that is sent to one address of the machine's end: nobody has this hardware's."""
        self._neighbour("replace", address, "lladdr", "02:00:00:00:00:01", "nud", "permanent")

    def let_through(self, address: str) -> None:
        """Have it arrive again."""
        self._neighbour("delete", address)

    def remove(self) -> None:
        """Take the namespace and the cable away."""
        self._run("ip", "netns", "delete", self.name)
        guard("-command", ["ip", "netns", "delete", self.name])

    def _taken(self, number: int) -> bool:
        shown = subprocess.run([self._ip, "-4", "-o", "address"], capture_output=True, text=True)
        return f" 172.31.{number}." in shown.stdout

    def _neighbour(self, verb: str, address: str, *words: str) -> None:
        self._run("ip", "-n", self.name, "neighbour", verb, "to", address, "dev", "eth0", *words)

    @staticmethod
    def _run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)
