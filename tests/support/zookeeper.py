"""Real ZooKeeper servers for tests: single or an ensemble, to be killed or frozen."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kazoo.client import KazooClient

JARS = Path("/usr/share/java")
JAVA = ("java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*")


def until(condition: Callable[[], object], seconds: float = 15, interval: float = 0.01) -> float:
    """Wait for `condition`; fails after `seconds`, returns how long it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + seconds, f"not within {seconds} s"
        time.sleep(interval)
    return time.monotonic() - begin


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def require_zookeeper() -> None:
    """Skip the test where ZooKeeper is missing, fail it in CI."""
    if shutil.which("java") and (JARS / "zookeeper.jar").exists():
        return
    if os.environ.get("CI") == "true":
        pytest.fail("java and ZooKeeper are missing")
    pytest.skip("java and ZooKeeper are missing")


@dataclass
class ZooKeeper:
    """One server with short ticks, so that a session may be as short as a second."""

    directory: Path
    settings: str = ""
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        require_zookeeper()
        self.directory.mkdir(exist_ok=True)
        (self.directory / "zoo.cfg").write_text(
            f"tickTime=500\ninitLimit=20\nsyncLimit=4\nmaxSessionTimeout=60000\n"
            f"maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n"
            f"dataDir={self.directory}\nclientPort={self.port}\nclientPortAddress=127.0.0.1\n"
            + self.settings
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def launch(self) -> None:
        """Start the process; `start` also waits until it serves."""
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*JAVA, main, str(self.directory / "zoo.cfg")],
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )

    def start(self) -> ZooKeeper:
        self.launch()
        until(self.mode, 40, 0.05)
        return self

    def ask(self, command: str) -> str:
        """The answer to one of ZooKeeper's four-letter commands; empty where there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(command.encode())
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        except OSError:
            return ""

    def mode(self) -> str:
        """standalone, leader or follower; empty while it does not serve."""
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()[-4000:]
        return self.ask("srvr").partition("Mode: ")[2].split("\n")[0]

    def writes(self) -> str:
        """The id of the last transaction: every write, and every session, counts it up."""
        return self.ask("srvr").partition("Zxid: ")[2].split("\n")[0]

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.process = None

    @contextmanager
    def client(self, auth: str = "") -> Iterator[KazooClient]:
        """A client of its own, with the rights of `auth` (``user:password``)."""
        client = KazooClient(self.address, auth_data={("digest", auth)} if auth else None)
        client.start(15)
        try:
            yield client
        finally:
            client.stop()
            client.close()


def zookeeper_cluster(directory: Path, size: int = 3) -> list[ZooKeeper]:
    """A running ensemble."""
    ports = iter(free_ports(2 * size))
    servers = "".join(
        f"server.{n + 1}=127.0.0.1:{next(ports)}:{next(ports)}\n" for n in range(size)
    )
    members = []
    for number in range(size):
        member = ZooKeeper(directory / f"member{number}", servers)
        (member.directory / "myid").write_text(str(number + 1))
        member.launch()
        members.append(member)
    until(lambda: all(member.mode() for member in members), 60, 0.05)
    return members
