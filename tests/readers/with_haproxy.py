"""HAProxy, whose server templates ask Consul's DNS. Its configuration is the example's."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from support.dns import instances
from support.process import Process
from support.servers import Consul, free_ports, program
from support.wait import until

from readers.following import SERVICE, Reader, Scene

CONFIG = Path(__file__).resolve().parents[2] / "examples/haproxy/haproxy.cfg"
QUERY = f"_{SERVICE}._tcp.service.consul"
NEEDED = " resolve-opts allow-dup-ip"
# Bits of a server's administrative state: what DNS does not tell is in maintenance.
MAINTENANCE = 0x20


class HAProxy(Reader):
    """Shows the servers that requests may go to."""

    def __init__(self, folder: Path, consul: Consul, config: str) -> None:
        folder.mkdir()
        (port,) = free_ports("127.0.0.1", 1)
        self._socket = folder / "stats"
        text = config.replace("127.0.0.1:8600", consul.dns_address)
        text = text.replace(":8080", f"127.0.0.1:{port}")
        path = folder / "haproxy.cfg"
        path.write_text(f"{text}\nglobal\n    stats socket {self._socket}\n")
        command = [program("haproxy", package="haproxy"), "-db", "-f", str(path)]
        self.programs = (Process("haproxy", folder, command),)

    def addresses(self) -> set[str]:
        _, names, *rows = self._ask(f"show servers state {SERVICE}").splitlines()
        at = {name: number for number, name in enumerate(names.lstrip("# ").split())}
        servers = [row.split() for row in rows if row]
        return {
            f"{server[at['srv_addr']]}:{server[at['srv_port']]}"
            for server in servers
            if not int(server[at["srv_admin_state"]]) & MAINTENANCE
        }

    def answers(self) -> int:
        """How many answers of the DNS it has used."""
        return sum(map(int, re.findall(r"valid: *(\d+)", self._ask("show resolvers"))))

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(60)
            asking.connect(str(self._socket))
            asking.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: asking.recv(65536), b"")).decode()


def test_server_templates(scene: Scene, consul: Consul, tmp_path: Path) -> None:
    reader = HAProxy(tmp_path / "haproxy", consul, CONFIG.read_text())
    scene.follow(reader, f"consul://{consul.address}")


def test_instances_are_missing_without_the_option(
    scene: Scene, consul: Consul, tmp_path: Path
) -> None:
    """HAProxy takes a second server at an address for a mistake of the DNS."""
    config = CONFIG.read_text()
    assert NEEDED in config
    reader = HAProxy(tmp_path / "haproxy", consul, config.replace(NEEDED, ""))
    all_three = scene.run(3, f"consul://{consul.address}")
    until(lambda: instances(consul.dns_address, QUERY) == all_three, "all in the DNS")
    try:
        reader.start()
        until(lambda: reader.answers() >= 10, reader.tail, ignore=(OSError,))
        assert reader.addresses() < all_three
    finally:
        reader.stop()
