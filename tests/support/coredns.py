"""A CoreDNS that answers from etcd. Debian has none, `make compatibility` makes one."""

from __future__ import annotations

from pathlib import Path

from support.process import Process
from support.servers import Etcd, free_ports, program


class CoreDNS(Process):
    """Answers at `address` for ``cluster.local``, with the configuration that its page shows."""

    def __init__(self, folder: Path, etcd: Etcd, corefile: str) -> None:
        binary = program("coredns", package="make compatibility")
        super().__init__("coredns", folder, [binary, "-conf", "Corefile"])
        (port,) = free_ports("127.0.0.1", 1)
        self.address = f"127.0.0.1:{port}"
        text = corefile.replace(":1053 {", f":{port} {{\n    bind 127.0.0.1")
        (folder / "Corefile").write_text(text.replace("127.0.0.1:2379", etcd.address))
