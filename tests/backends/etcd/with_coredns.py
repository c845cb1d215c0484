"""The time to live that a CoreDNS gives our records. ``make compatibility`` runs this file.

`make test` does not: a CoreDNS has to be built first.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.etcd import Backends, running
from support.process import Process
from support.servers import Etcd, free_ports, program
from support.wait import until

from registrator.model import Plan, Service

SERVICE = Service("host:web1:80", "web", "127.0.0.1", 8080, 80)
SRV = 33


class CoreDNS(Process):
    """A CoreDNS that answers for ``cluster.local`` from an etcd, and keeps answers for a day."""

    def __init__(self, folder: Path, etcd: Etcd) -> None:
        super().__init__("coredns", folder)
        (self.port,) = free_ports("127.0.0.1", 1)
        (folder / "Corefile").write_text(
            f"cluster.local:{self.port} {{\n bind 127.0.0.1\n cache 86400\n"
            f" etcd {{\n path /skydns\n endpoint http://{etcd.address}\n }}\n}}\n"
        )

    def command(self) -> list[str]:
        return [program("coredns", package="make compatibility"), "-conf", "Corefile"]

    def ttls(self, name: str) -> list[int]:
        """The times to live of a name's SRV records in seconds."""
        labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
        query = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, SRV, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(5)
            asking.sendto(query, ("127.0.0.1", self.port))
            answer = asking.recv(4096)
        (count,) = struct.unpack(">H", answer[6:8])
        found, rest = [], answer[len(query) :]
        for _ in range(count):
            rest = rest[_end_of_name(rest) :]
            ttl, length = struct.unpack(">4xIH", rest[:10])
            found.append(ttl)
            rest = rest[10 + length :]
        return found


def _end_of_name(data: bytes) -> int:
    """The number of bytes of the name at the start of `data`, which may end in a pointer."""
    at = 0
    while data[at]:
        if data[at] >= 0xC0:
            return at + 2
        at += 1 + data[at]
    return at + 1


@pytest.fixture
def make() -> Iterator[Backends]:
    with closing(Backends()) as backends:
        yield backends


@pytest.mark.parametrize("ttl", [0, 60])
@pytest.mark.parametrize(("query", "most"), [("", 30), ("?dns-ttl=5", 5)])
def test_no_record_lives_longer_than_dns_ttl(
    tmp_path: Path, make: Backends, ttl: float, query: str, most: int
) -> None:
    """CoreDNS takes the smaller of the record's own time to live and that of its lease."""
    with running(tmp_path) as etcd:
        backend = make(f"skydns2://{etcd.address}/cluster.local{query}", ttl=ttl)
        assert backend.apply(Plan((backend.entry(SERVICE),))) == {}
        coredns = CoreDNS(tmp_path / "coredns", etcd)
        coredns.launch()
        try:
            found = until(lambda: coredns.ttls("web.cluster.local"), "an answer", ignore=(OSError,))
        finally:
            coredns.kill()
        assert len(found) == 1
        assert 0 < found[0] <= most
