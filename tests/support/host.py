"""A Docker host of its own: an engine with a network of its own, and files that it may write."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from support.agent import READ_BY_AGENT
from support.certificates import Authority
from support.engine import Dockerd
from support.namespace import Isolated
from support.servers import program

ROOT = Path(__file__).resolve().parents[2]

# What is written to these folders stays in memory, and ends with the engine.
MOUNTS = """\
set -e
mount -t tmpfs tmpfs /run
for folder in /etc /opt "$0"; do
    written=/run/written$folder
    mkdir -p "$written/upper" "$written/work"
    options=lowerdir=$folder,upperdir=$written/upper,workdir=$written/work
    mount -t overlay overlay -o "$options" "$folder"
done
exec "$@"
"""


class Host(Dockerd):
    """An engine in a network namespace with loopback, an address, and a default route to nowhere.

    So compose files can publish the ports that their users know, several runs go side by side,
    and the engine may make its packet filter rules as on any host. It serves the socket that
    everybody knows, in a mount namespace where `/run` is its own, and where what is written to
    `/etc`, `/opt` and this checkout is seen by nobody else. `ip` is the host's address, `images`
    the names of those that were made on it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name in ("iptables", "curl"):
            program(name, package=name)
        self.images: set[str] = set()
        self.flags += ["--host=unix:///run/docker.sock", "--group=2375", *self._serve_tls()]

    def _make_network(self) -> tuple[Isolated, str]:
        made, ip = Isolated(), "192.0.2.10"
        for words in (
            "link add eth0 type bridge",
            f"address add {ip}/24 dev eth0",
            "link set eth0 up",
            "route add default via 192.0.2.1",
        ):
            made.inside(*words.split())
        return made, ip

    def _serve_tls(self) -> list[str]:
        """At the port of remote engines too. `tls` has the authority and a client's certificate."""
        self.tls = self.folder / "tls"
        authority = Authority(self.tls)
        cert, key = authority.issue("engine", self.ip)
        for name, file in zip(("cert", "key"), authority.issue("client"), strict=True):
            file.rename(self.tls / f"{name}.pem")
        files = [f"--tlscacert={authority.ca}", f"--tlscert={cert}", f"--tlskey={key}"]
        return [f"--host=tcp://{self.ip}:2376", "--tlsverify", *files]

    def command(self) -> list[str]:
        mounts = ["unshare", "--mount", "sh", "-c", MOUNTS, str(ROOT)]
        return [*self.network.command, *mounts, *self.words()]

    @property
    def inside(self) -> list[str]:
        """The words before a command that make it run on this host. It begins in ``/``."""
        return [*self.network.command, f"--mount=/proc/{self.pid}/ns/mnt"]

    def environment(self) -> Mapping[str, str]:
        """This process's own, without what would lead the Docker CLI or an agent elsewhere."""
        return {key: value for key, value in os.environ.items() if not READ_BY_AGENT.match(key)}

    def run(
        self,
        *command: str,
        folder: Path = ROOT,
        environ: Mapping[str, str] | None = None,
        deadline: float = 300,
        check: bool = True,
    ) -> str:
        """Run a command on this host, by default in the checkout. Returns what it prints."""
        done = subprocess.run(
            [*self.inside, "env", f"--chdir={folder}", *command],
            env={**self.environment(), **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return done.stdout
