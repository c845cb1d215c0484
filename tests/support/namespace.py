"""Network namespaces: hosts of their own, as far as the network goes."""

from __future__ import annotations

import os
import random
import secrets
import subprocess

from support.process import guard
from support.require import require
from support.servers import program


class Isolated:
    """A network namespace with loopback alone. `command` runs programs there.

    Its ports, addresses and packet filter rules are nobody else's. It goes with `remove`, or when
    this process ends.
    """

    def __init__(self) -> None:
        self._ip = program("ip", package="iproute2")
        self._nsenter = program("nsenter", package="util-linux")
        require("root", os.geteuid() == 0, "a network namespace needs it")
        self.name = f"rgt-{secrets.token_hex(4)}"
        self._run("ip", "netns", "add", self.name)
        guard("+command", ["ip", "netns", "delete", self.name])
        self.inside("link", "set", "lo", "up")

    @property
    def command(self) -> list[str]:
        """The words before a command that run it in the namespace."""
        return [self._nsenter, f"--net=/run/netns/{self.name}"]

    def inside(self, *words: str) -> None:
        """Run `ip` with `words` in there."""
        self._run("ip", "-n", self.name, *words)

    def remove(self) -> None:
        """Take the namespace away, with its interfaces."""
        self._run("ip", "netns", "delete", self.name)
        guard("-command", ["ip", "netns", "delete", self.name])

    @staticmethod
    def _run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)


class Namespace(Isolated):
    """A network namespace with a cable to the machine's own, that can be unplugged.

    `address` is the machine's end of the cable, and `inner` the other one. Unplugged, packets are
    dropped both ways and nobody is told: no FIN, no RST.
    """

    def __init__(self) -> None:
        super().__init__()
        number = self._lay_cable()
        self.address = f"172.31.{number}.1"
        self.inner = f"172.31.{number}.2"
        self._run("ip", "address", "add", f"{self.address}/24", "dev", self._cable)
        self.inside("address", "add", f"{self.inner}/24", "dev", "eth0")
        self.inside("link", "set", "eth0", "up")
        self.plug()

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

    def _lay_cable(self) -> int:
        """Lay a cable whose name nobody has, and return its number: the kernel lets one have it."""
        shown = subprocess.run([self._ip, "-4", "-o", "address"], capture_output=True, text=True)
        for number in random.sample(range(256), 256):
            self._cable = f"rgtv{number}"
            peer = ["type", "veth", "peer", "eth0", "netns", self.name]
            made = subprocess.run(
                [self._ip, "link", "add", self._cable, *peer], capture_output=True, text=True
            )
            if made.returncode == 0 and f" 172.31.{number}." not in shown.stdout:
                return number
            if made.returncode == 0:
                self._run("ip", "link", "delete", self._cable)
            elif "File exists" not in made.stderr:
                raise AssertionError(made.stderr)
        raise AssertionError("all networks 172.31.N.0/24 are taken")

    def _neighbour(self, verb: str, address: str, *words: str) -> None:
        self.inside("neighbour", verb, "to", address, "dev", "eth0", *words)
