"""A Docker engine of its own, that shares nothing with any other engine of the machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from support import engine_cleanup
from support.docker_api import APIError, DockerAPI
from support.namespace import Isolated, Namespace
from support.process import guard
from support.servers import Server, program
from support.wait import until

NO_PACKET_FILTER = ("--iptables=false", "--ip-masq=false", "--ip-forward=false")


class Dockerd(Server):
    """A dockerd on a private socket, `host`. `flags` are added to its command line.

    Its network is a namespace of its own, so the ports that it publishes are free: it gives up
    after ten that are not. From the machine they are reached at `ip`. It makes no packet filter
    rules, since its proxy serves published ports without any. Killed, it leaves its containers
    running, as any engine does. At a stop it leaves them only with `live_restore`. `remove` takes
    all away.
    """

    def __init__(
        self, folder: Path, *, live_restore: bool = False, flags: Iterable[str] = ()
    ) -> None:
        super().__init__("dockerd", folder)
        self._binary = program("dockerd", package="docker.io")
        self.network, self.ip = self._make_network()
        # A socket's path has at most 107 characters, and containerd's are long. It is made by
        # `launch`, when the guard knows of it.
        self.root = Path(tempfile.gettempdir(), self.network.name)
        self.data = self.root / "data"
        self.socket = self.root / "docker.sock"
        self.host = f"unix://{self.socket}"
        self.api = DockerAPI(self.socket)
        self.flags = [*flags, *(["--live-restore"] if live_restore else [])]
        self._cleaning = engine_cleanup.command(self.root, self.network.name)

    def _make_network(self) -> tuple[Isolated, str]:
        """The engine's network, and its address there."""
        made = Namespace()
        return made, made.inner

    def environment(self) -> Mapping[str, str]:
        """A containerd that the engine ends for its silence writes its stacks to TMPDIR."""
        return {**os.environ, "TMPDIR": str(self.folder)}

    def command(self) -> list[str]:
        return [*self.network.command, *self.words(), *NO_PACKET_FILTER]

    def words(self) -> list[str]:
        """The engine's own command line."""
        return [
            self._binary,
            f"--config-file={self._config()}",
            f"--host={self.host}",
            f"--data-root={self.data}",
            f"--exec-root={self.root / 'exec'}",
            f"--pidfile={self.root / 'docker.pid'}",
            f"--cgroup-parent=/{self.network.name}",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            "--shutdown-timeout=5",
            *self.flags,
        ]

    def _config(self) -> Path:
        """A configuration instead of the machine's.

        An engine before 24 has its id from a key, which all of a machine share in /etc/docker.
        """
        shown = subprocess.run([self._binary, "--version"], check=True, capture_output=True)
        major = re.search(rb"version (\d+)", shown.stdout)
        old = major is not None and int(major[1]) < 24
        config: dict[str, object] = (
            {"deprecated-key-path": str(self.data / "key.json")} if old else {}
        )
        if store := os.environ.get("TEST_IMAGE_STORE"):
            config["features"] = {"containerd-snapshotter": store == "containerd"}
        path = self.folder / "daemon.json"
        path.write_text(json.dumps(config))
        return path

    def launch(self) -> None:
        if not self.root.exists():
            guard("+command", self._cleaning)
            self.root.mkdir(mode=0o700)
        self._forget_containerd()
        super().launch()

    def _forget_containerd(self) -> None:
        """Containerd dies with a killed engine, but the next would take its zombie for alive."""
        pid_file = self.root / "exec/containerd/containerd.pid"
        if pid_file.exists():
            command = Path("/proc", pid_file.read_text(), "cmdline")
            until(
                lambda: not command.exists() or not command.read_bytes(),
                "containerd's end",
                ignore=(FileNotFoundError, ProcessLookupError),  # while it is read
            )
            pid_file.unlink(missing_ok=True)

    def ready(self) -> bool:
        try:
            return bool(self.api.request("GET", "/_ping", deadline=2) == b"OK")
        except APIError:
            return False

    def freeze(self) -> None:
        """SIGSTOP to the engine alone: its containers and their ports go on."""
        os.kill(self.pid, signal.SIGSTOP)
        self.wait_frozen()

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        """Kill it, its containers too, and take away all that it made but its log."""
        self.kill()
        engine_cleanup.clean_up(self.root, self.network.name)
        guard("-command", self._cleaning)
        self.network.remove()
